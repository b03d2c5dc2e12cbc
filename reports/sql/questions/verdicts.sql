-- Question: What did every comparison say, newest first?
-- Grain: one finished run of the compare flow.
-- Columns:
--   finished_at                          when the run ended (UTC)
--   run_id                               run
--   dataset                              name of the dataset
--   model_a, model_b                     registered name of the model of the arm
--   clips                                clips both arms answered
--   reference_words                      words of their references
--   wer_a, wer_b                         WER as a fraction
--   wer_difference                       wer_b - wer_a, a fraction
--   wer_ci_low, wer_ci_high              confidence interval of wer_difference, fractions
--   task                                 what the models were asked: "transcribe" or "classify"
--   accuracy_a, accuracy_b               label accuracy as a fraction; empty where words count
--   accuracy_difference                  accuracy_b - accuracy_a, a fraction
--   accuracy_ci_low, accuracy_ci_high    confidence interval of accuracy_difference, fractions
--   verdict                              "a better", "b better", "equivalent" or "cannot tell"
SELECT
    finished_at,
    run_id,
    dataset,
    model_a,
    model_b,
    scored_clips AS clips,
    reference_words,
    wer_a,
    wer_b,
    wer_difference,
    wer_ci_low,
    wer_ci_high,
    task,
    accuracy_a,
    accuracy_b,
    accuracy_difference,
    accuracy_ci_low,
    accuracy_ci_high,
    verdict
FROM ab_summary
WHERE finished
ORDER BY finished_at DESC, run_id
