-- title: Videos without frames, or of an odd duration or rate
-- severity: W
-- threshold: least_frames = 2, one frame is a picture
-- threshold: most_seconds = 14400, seconds
-- threshold: least_fps = 0.5, frames a second
-- threshold: most_fps = 240, frames a second
-- advice: Frames are chosen by these facts; encode such files anew.
select dataset, sample_id, name, frames, round(duration, 3) as duration, round(fps, 3) as fps
from audited_media
where kind = 'video' and selected and (
    coalesce(frames, 0) < $least_frames or coalesce(duration, 0) <= 0 or duration > $most_seconds
    or coalesce(fps, 0) < $least_fps or fps > $most_fps
)
order by all
