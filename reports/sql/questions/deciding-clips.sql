-- Question: Which clips decide the difference between the two models?
-- Grain: one clip of the asked run that the arms answered with a different number of errors.
-- Columns:
--   errors_difference                    errors of b - errors of a, in words; above 0 the second model lost here
--   net_share                            errors_difference / the sum of it over all clips, a fraction; can exceed 1 where clips cancel each other
--   key                                  name of the clip in the manifest
--   speaker                              speaker, empty if unknown
--   audio_seconds                        length of the clip in seconds
--   reference                            reference text, as written in the manifest
--   hypothesis_a, hypothesis_b           what the model said
--   errors_a, errors_b                   substitutions + deletions + insertions, in words
-- Variables:
--   run                                  run id; without it the comparison that finished last
SELECT
    c.errors_difference,
    c.errors_difference / nullif(sum(c.errors_difference) OVER (), 0) AS net_share,
    c."key",
    c.speaker,
    c.audio_seconds,
    c.reference,
    c.hypothesis_a,
    c.hypothesis_b,
    c.errors_a,
    c.errors_b
FROM ab_clips c
INNER JOIN asked_run ON asked_run.run_id = c.run_id
WHERE c.scored AND c.errors_difference <> 0
ORDER BY abs(c.errors_difference) DESC, c.errors_difference DESC, c."key"
