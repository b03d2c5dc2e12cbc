-- Question: Which labels does either model name better?
-- Grain: one value of one slice of one finished comparison on labels, the newest first.
-- Columns:
--   finished_at                          when the run ended (UTC)
--   run_id                               run
--   dataset                              name of the dataset
--   model_a, model_b                     registered name of the model of the arm
--   slice                                "events", "label", "speaker" or a column of the manifest
--   value                                value of the slice
--   clips                                clips both arms answered
--   accuracy_a, accuracy_b               share of them with every label right, a fraction
--   only_a_right, only_b_right           clips that only one arm got right
--   p_value                              p-value of the exact McNemar test; empty if it was not tested
--   adjusted                             p-value corrected for all values of the run that were tested (Benjamini-Hochberg)
--   stands_out                           whether adjusted is at most 0.05
SELECT
    r.finished_at,
    r.run_id,
    r.dataset,
    r.model_a,
    r.model_b,
    x.slice,
    x."value",
    x.clips,
    x.accuracy_a,
    x.accuracy_b,
    x.only_a_right,
    x.only_b_right,
    x.p_value,
    x.adjusted,
    x.stands_out
FROM accuracies x
INNER JOIN ab_runs r ON r.run_id = x.run_id
WHERE r.finished
ORDER BY r.finished_at DESC, r.run_id, x.slice, x."value"
