-- Grain: one part of the difference of word error rates of one run of the compare flow.
-- Columns:
--   run_id                               run
--   finished                             whether the run reached its end
--   dataset                              name of the dataset
--   model_a, model_b                     registered name of the model of the arm
--   dimension                            words, speakers or slices; the parts of one (of slices, of one name) add up to the difference
--   name                                 "word" (said, not heard so), "inserted" (heard, not said), "speaker", or the name of the slice
--   value                                the word, the speaker, or the value of the slice
--   errors_a, errors_b                   errors of the arm in this part, in words
--   reference_words                      words of the references in this part; 0 for an insertion
--   contribution                         what the part adds to wer_b - wer_a, as a fraction of all reference words
--   clips                                clips in which the arms made a different number of these errors
--   rank                                 1 for the part of its dimension (of slices, of its name) that contributes most
--   first_clip                           name of the clip in the manifest that pushes most the way the part does; empty if none does
-- Example:
--   SELECT dimension, name, value, contribution, first_clip
--   FROM ab_blame
--   WHERE finished AND rank <= 5
--   ORDER BY run_id, dimension, name, rank
SELECT
    r.run_id,
    r.finished,
    r.dataset,
    r.model_a,
    r.model_b,
    b.dimension,
    b.name,
    b."value",
    b.errors_a,
    b.errors_b,
    b.reference_words,
    b.contribution,
    b.clips,
    row_number() OVER (
        PARTITION BY b.run_id, b.dimension, CASE WHEN b.dimension = 'slices' THEN b.name END
        ORDER BY abs(b.contribution) DESC, b.name, b."value"
    ) AS rank,
    c."key" AS first_clip
FROM ab_runs r
INNER JOIN blame b ON b.run_id = r.run_id
LEFT JOIN clips c ON c.run_id = b.run_id AND c.clip_id = json_extract_string(b.examples, '$[0]')
