-- Grain: one slice of one clip in one run of the compare flow. Clips without a value for a slice have no row for it.
-- Columns:
--   run_id                               run
--   clip_id                              content id of the clip
--   slice                                name of the slice: a column of the manifest, or "speaker"
--   value                                value of the slice, never empty
-- Example:
--   SELECT slice, "value", count(*) AS clips
--   FROM clip_slices
--   GROUP BY slice, "value"
--   ORDER BY slice, "value"
WITH compared AS (
    SELECT c.run_id, c.clip_id, c.slices, c.speaker
    FROM clips c
    INNER JOIN ab_runs r ON r.run_id = c.run_id
),
named AS (
    SELECT run_id, clip_id, unnest(map_entries(
        json_transform(CASE WHEN json_valid(slices) THEN slices ELSE '{}' END, '"MAP(VARCHAR, VARCHAR)"')
    )) AS entry
    FROM compared
)
SELECT run_id, clip_id, entry."key" AS slice, entry."value" AS "value"
FROM named
WHERE entry."key" <> 'speaker' AND entry."value" <> ''
UNION ALL
SELECT run_id, clip_id, 'speaker' AS slice, speaker AS "value"
FROM compared
WHERE speaker <> ''
