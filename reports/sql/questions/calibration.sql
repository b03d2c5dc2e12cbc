-- Question: Can the models' confidence be trusted?
-- Grain: one arm and one tenth of the confidence in the asked run, over all clips the arm answered.
-- Columns:
--   arm                                  "a" or "b"
--   model                                registered name of the model of the arm
--   from_confidence, to_confidence       the bin: from this confidence up to, not including, the next, in [0, 1]; the last bin includes 1
--   clips                                clips in the bin
--   mean_confidence                      mean of their confidence, in [0, 1]
--   exact                                share of clips without a single error, a fraction
--   word_accuracy                        words right / reference words, a fraction; empty without words
--   gap                                  mean_confidence - exact, a fraction; above 0 the model is surer than it should be
-- Variables:
--   run                                  run id; without it the comparison that finished last
WITH binned AS (
    SELECT
        o.*,
        least(floor(10 * o.confidence), 9)::BIGINT AS bin,
        (o.substitutions + o.deletions + o.insertions = 0)::BIGINT AS exact
    FROM outcomes o
    INNER JOIN asked_run ON asked_run.run_id = o.run_id
    WHERE o.status = 'ok' AND o.confidence IS NOT NULL AND o.reference_words IS NOT NULL
)
SELECT
    arm,
    model,
    bin / 10 AS from_confidence,
    (bin + 1) / 10 AS to_confidence,
    count(*) AS clips,
    avg(confidence) AS mean_confidence,
    sum(exact) / count(*) AS exact,
    sum(hits) / nullif(sum(reference_words), 0) AS word_accuracy,
    avg(confidence) - sum(exact) / count(*) AS gap
FROM binned
GROUP BY arm, model, bin
ORDER BY arm, bin
