-- Grain: one rate measured by one self-audit: simulated experiments whose arms are the same, so that every finding is a false one.
-- Columns:
--   run_id                               run of the audit
--   audited_at                           when it ran (UTC)
--   experiment                           audited configuration
--   outcomes                             which recorded outcomes both arms drew from
--   rate                                 false-positives, false-ships, false-rollbacks or srm-alarms, at any look
--   replicates                           simulated experiments
--   looks                                looks at each of them
--   units                                units in each of them
--   hits                                 experiments in which it happened
--   measured                             hits / replicates, a fraction
--   low, high                            its 95 % Clopper-Pearson interval, fractions
--   at_most                              its one-sided upper 95 % bound, a fraction
--   promise                              what was promised, a fraction
--   kept                                 whether at_most does not exceed the promise
--   pooled                               the rate over this audit and all earlier ones of the experiment, a fraction
-- Example:
--   SELECT audited_at, experiment, rate, measured, at_most, promise, kept
--   FROM aa_audits
--   ORDER BY audited_at DESC, experiment, rate
SELECT
    a.run_id,
    a.at AS audited_at,
    a.experiment,
    a.outcomes,
    a.rate,
    a.replicates,
    a.looks,
    a.units,
    a.hits,
    a.measured,
    a.low,
    a.high,
    a.at_most,
    a.promise,
    a.kept,
    sum(a.hits) OVER earlier / sum(a.replicates) OVER earlier AS pooled
FROM audits a
WINDOW earlier AS (PARTITION BY a.experiment, a.rate ORDER BY a.at, a.run_id)
