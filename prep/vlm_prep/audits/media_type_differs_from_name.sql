-- title: Media whose bytes are of another type than their names say
-- severity: W
-- advice: Harmless here, where bytes decide; other tools go by the name.
with named as (
    select *, case regexp_extract(lower(source_name), '\.([a-z0-9]{2,5})$', 1)
        when 'jpg' then 'jpeg' when 'jpeg' then 'jpeg' when 'jpe' then 'jpeg' when 'jfif' then 'jpeg' when 'png' then 'png'
        when 'gif' then 'gif' when 'webp' then 'webp' when 'bmp' then 'bmp' when 'tif' then 'tiff' when 'tiff' then 'tiff'
        when 'avif' then 'avif' when 'mp4' then 'mp4' when 'm4v' then 'mp4' when 'mov' then 'mp4' when 'webm' then 'mkv'
        when 'mkv' then 'mkv' when 'avi' then 'avi' when 'flv' then 'flv' when 'wmv' then 'wmv'
    end as by_name
    from audited_media
)
select dataset, sample_id, name, source_name, format
from named
where by_name <> case format when 'mov' then 'mp4' when 'webm' then 'mkv' else format end and selected
order by all
