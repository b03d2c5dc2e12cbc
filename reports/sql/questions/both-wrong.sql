-- Question: Which clips do both models fail on, so that the reference itself is suspect?
-- Grain: one clip of the asked run that both arms answered with errors, or that neither answered.
-- Columns:
--   finding                              "same wrong answer" (look at the reference first), "both wrong" or "no answer from either"
--   key                                  name of the clip in the manifest
--   speaker                              speaker, empty if unknown
--   reference                            reference text, as written in the manifest
--   answer_a, answer_b                   normalised words of the answer; empty without an answer
--   errors_a, errors_b                   substitutions + deletions + insertions, in words; empty without an answer
--   confidence                           the lower of the two confidences, in [0, 1]; high with errors points at the reference
--   path                                 file, relative to the dataset's folder
-- Variables:
--   run                                  run id; without it the comparison that finished last
WITH answered AS (
    SELECT
        w.run_id,
        w.clip_id,
        string_agg(w.hypothesis, ' ' ORDER BY w."position") FILTER (WHERE w.arm = 'a' AND w.hypothesis <> '') AS answer_a,
        string_agg(w.hypothesis, ' ' ORDER BY w."position") FILTER (WHERE w.arm = 'b' AND w.hypothesis <> '') AS answer_b
    FROM words w
    INNER JOIN asked_run ON asked_run.run_id = w.run_id
    GROUP BY w.run_id, w.clip_id
),
sure AS (
    SELECT run_id, clip_id, min(confidence) AS confidence
    FROM outcomes
    WHERE status = 'ok'
    GROUP BY run_id, clip_id
)
SELECT
    CASE
        WHEN NOT c.scored THEN 'no answer from either'
        WHEN coalesce(w.answer_a, '') = coalesce(w.answer_b, '') THEN 'same wrong answer'
        ELSE 'both wrong'
    END AS finding,
    c."key",
    c.speaker,
    c.reference,
    coalesce(w.answer_a, '') AS answer_a,
    coalesce(w.answer_b, '') AS answer_b,
    c.errors_a,
    c.errors_b,
    s.confidence,
    k.path
FROM ab_clips c
INNER JOIN asked_run ON asked_run.run_id = c.run_id
INNER JOIN clips k ON k.run_id = c.run_id AND k.clip_id = c.clip_id
LEFT JOIN answered w ON w.run_id = c.run_id AND w.clip_id = c.clip_id
LEFT JOIN sure s ON s.run_id = c.run_id AND s.clip_id = c.clip_id
WHERE (c.scored AND c.errors_a > 0 AND c.errors_b > 0) OR (c.status_a <> 'ok' AND c.status_b <> 'ok')
ORDER BY finding = 'same wrong answer' DESC, s.confidence DESC NULLS LAST, c."key"
