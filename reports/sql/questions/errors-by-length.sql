-- Question: Are errors lost words or made-up words, and does that depend on how long the clip is?
-- Grain: one arm and one range of reference words of the asked run, over the clips both arms answered.
-- Columns:
--   arm                                  "a" or "b"
--   model                                registered name of the model of the arm
--   reference_words                      words of a clip's reference: 0, 1, 2-4, 5-7, 8-15 or 16+
--   clips                                clips of that length
--   words                                their reference words together
--   errors                               substitutions + deletions + insertions, in words
--   wer                                  errors / words as a fraction; empty without words
--   substitution_share                   substitutions / errors as a fraction; the three shares add up to 1
--   deletion_share                       deletions / errors as a fraction
--   insertion_share                      insertions / errors as a fraction
-- Variables:
--   run                                  run id; without it the comparison that finished last
WITH arms AS (
    SELECT run_id, 'a' AS arm, model_a AS model, reference_words, substitutions_a AS s, deletions_a AS d, insertions_a AS i
    FROM ab_clips
    WHERE scored
    UNION ALL
    SELECT run_id, 'b' AS arm, model_b AS model, reference_words, substitutions_b AS s, deletions_b AS d, insertions_b AS i
    FROM ab_clips
    WHERE scored
),
counted AS (
    SELECT
        c.arm,
        c.model,
        CASE
            WHEN c.reference_words = 0 THEN '0'
            WHEN c.reference_words = 1 THEN '1'
            WHEN c.reference_words <= 4 THEN '2-4'
            WHEN c.reference_words <= 7 THEN '5-7'
            WHEN c.reference_words <= 15 THEN '8-15'
            ELSE '16+'
        END AS length,
        min(c.reference_words) AS shortest,
        count(*) AS clips,
        sum(c.reference_words)::BIGINT AS words,
        sum(c.s)::BIGINT AS s,
        sum(c.d)::BIGINT AS d,
        sum(c.i)::BIGINT AS i
    FROM arms c
    INNER JOIN asked_run ON asked_run.run_id = c.run_id
    GROUP BY c.arm, c.model, length
)
SELECT
    arm,
    model,
    length AS reference_words,
    clips,
    words,
    s + d + i AS errors,
    errors / nullif(words, 0) AS wer,
    s / nullif(errors, 0) AS substitution_share,
    d / nullif(errors, 0) AS deletion_share,
    i / nullif(errors, 0) AS insertion_share
FROM counted
ORDER BY arm, shortest
