-- Question: How many answers of each model are refusals, loops, empty, truncated or about another task?
-- Grain: one failure class of one model on one dataset, over all finished comparisons.
-- Columns:
--   model                                registered name
--   dataset                              name of the dataset
--   task                                 what it was asked: "transcribe" or "classify"
--   failure                              refusal, repetition, empty, truncated or wrong-task
--   runs                                 finished runs with it
--   answers                              answers of that class
--   wrong                                how many of them have a word error, or not all labels right
--   example                              one of these texts
SELECT
    model,
    dataset,
    task,
    failure,
    count(DISTINCT run_id) AS runs,
    sum(answers)::BIGINT AS answers,
    sum(wrong)::BIGINT AS wrong,
    min(example) AS example
FROM answer_failures
WHERE finished
GROUP BY model, dataset, task, failure
ORDER BY answers DESC, model, dataset, task, failure
