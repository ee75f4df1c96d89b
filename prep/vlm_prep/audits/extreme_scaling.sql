-- title: Pictures that are shown much larger or smaller than they are
-- severity: I
-- threshold: most_growth = 16, times the pixels
-- threshold: most_shrinking = 64, times the pixels
-- advice: Small text is lost where they shrink; nothing is won where they grow. The pixel settings of the processor decide.
select audited.dataset, audited.sample_id, sum(width::bigint * height)::bigint as own_pixels, any_value(vision_patches) * any_value(pixels_per_patch.pixels) as shown_pixels
from audited_media
join audited using (sample_key)
cross join pixels_per_patch
where audited.selected
group by audited.dataset, audited.sample_id
having bool_and(kind = 'image') and (shown_pixels > $most_growth * own_pixels or own_pixels > $most_shrinking * shown_pixels)
order by dataset, audited.sample_id
