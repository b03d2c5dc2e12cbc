-- Question: Which quality rules failed, on what, and why do they exist?
-- Grain: one rule of one suite that did not pass everywhere in the asked run.
-- Columns:
--   suite                                name of the expectation suite
--   rule                                 name of the rule
--   severity                             critical, warning or info
--   judged                               batches (or other subjects) it was asked about
--   failed                               of these, how many broke it
--   not_evaluated                        of these, on how many it could not be evaluated, which never counts as a pass
--   evaluated                            rows judged
--   unexpected                           rows that broke it; 1 for each rule about a whole batch
--   share                                unexpected / evaluated as a fraction; empty if nothing was evaluated
--   observed                             what was observed in the worst subject, as text
--   reason                               why the rule exists
-- Variables:
--   run                                  run id; without it the comparison that finished last
SELECT
    q.suite,
    q.rule,
    q.severity,
    count(*) AS judged,
    count(*) FILTER (WHERE q.status = 'fail') AS failed,
    count(*) FILTER (WHERE q.status = 'not evaluated') AS not_evaluated,
    sum(q.evaluated)::BIGINT AS evaluated,
    sum(q.unexpected)::BIGINT AS unexpected,
    sum(q.unexpected) / nullif(sum(q.evaluated), 0) AS share,
    arg_max(q.observed, q.unexpected) FILTER (WHERE q.status <> 'pass') AS observed,
    max(q.reason) AS reason
FROM quality q
INNER JOIN asked_run ON asked_run.run_id = q.run_id
GROUP BY q.suite, q.rule, q.severity
HAVING count(*) FILTER (WHERE q.status <> 'pass') > 0
ORDER BY q.severity = 'critical' DESC, unexpected DESC, q.suite, q.rule
