-- Question: Which words are confused, lost or made up most?
-- Grain: one reference word and what one arm of the asked run made of it.
-- Columns:
--   arm                                  "a" or "b"
--   model                                registered name of the model of the arm
--   operation                            "sub" (another word), "del" (nothing) or "ins" (a word where there was none)
--   reference                            word of the normalised reference, empty for an insertion
--   hypothesis                           word of the normalised answer, empty for a deletion
--   times                                how often it happened, in words
--   clips                                clips in which it happened
--   share                                times / how often the reference word was spoken, a fraction; empty for an insertion
-- Variables:
--   run                                  run id; without it the comparison that finished last
SELECT
    w.arm,
    w.model,
    w.operation,
    w.reference,
    w.hypothesis,
    w.times,
    w.clips,
    w.share
FROM word_confusions w
INNER JOIN asked_run ON asked_run.run_id = w.run_id
ORDER BY w.times DESC, w.share DESC NULLS LAST, w.arm, w.reference, w.hypothesis
