-- Every text that is kept and must hold no secret: where it is (`place`, `id`) and what it says (`said`).
-- `has_hashes`: hashes may stand in it, which look like a private key with 0x.
-- `is_ours`: we wrote it; what a webhook's receiver answers may be any prose, and look like a seed phrase.
-- What the merchant wrote into a payment, and what a transfer says of its block, may look like anything.
SELECT 'an event' AS place, id, false AS has_hashes, true AS is_ours,
       (body::jsonb #- '{payment,metadata}' #- '{payment,order_id}' #- '{payment,webhook_url}'
        #- '{transfer,tx_hash}' #- '{transfer,block_hash}')::text AS said
FROM events
UNION ALL
SELECT 'a dead letter', id, false, true, message FROM dead_letters
UNION ALL
SELECT 'a dead letter', id, true, true, concat_ws(E'\n', exception, traceback) FROM dead_letters
UNION ALL
SELECT 'a webhook attempt', delivery_id, false, true, error FROM webhook_attempts
UNION ALL
SELECT 'a webhook attempt', delivery_id, true, false, response FROM webhook_attempts
UNION ALL
SELECT 'a stored answer', key, false, true,
       (response::jsonb #- '{metadata}' #- '{order_id}' #- '{webhook_url}')::text
FROM idempotency_keys
UNION ALL
SELECT 'a custom webhook', id, true, false, payload FROM webhook_deliveries
UNION ALL
-- What the merchant called the order stands in the e-mail too.
SELECT 'an e-mail', m.id, true, true, replace(concat_ws(E'\n', m.subject, m.text, m.html), coalesce(p.order_id, ''), '')
FROM emails m
LEFT JOIN payments p ON p.id = m.payment_id
UNION ALL
-- The evidence in a result repeats what the merchant wrote into the payment.
SELECT 'a job', id, true, kind <> 'custom-webhook',
       concat_ws(E'\n', params, progress, result::jsonb - 'evidence', error) FROM jobs
UNION ALL
SELECT 'a source of rates', source, false, true, last_error FROM rate_sources
UNION ALL
SELECT 'the audit log', id, true, true, concat_ws(E'\n', by, action, target, detail) FROM audit_log
