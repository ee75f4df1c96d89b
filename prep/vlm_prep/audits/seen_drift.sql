-- title: Shares of what was trained on that are not those of the mix
-- severity: E
-- threshold: most_samples = 50, samples; merging keeps windows within a few, packing lets some wait
-- advice: vlm-train explain RUN --step N says what a step had; see whether steps or losses are missing.
select dataset, round(asked, 6) as asked, round(realised, 6) as realised, num_rows
from trained_shares
where abs(num_rows - asked * all_rows) > $most_samples
order by dataset
