-- What must always hold of the rows, each as a query that returns what violates it: `ids` and a `sentence`.
-- The numbers are those of the invariants in docs/MAP.md. `:arrows` is TRANSITIONS as JSON,
-- `:job_died` what stands in a job that ended by an exception.
-- That of secrets is kept_texts.sql.

-- invariant: 1 transfer_is_final_once
SELECT array_agg(id ORDER BY id) AS ids,
       format('transfer %s of 0x%s is final in %s blocks', log_index, encode(tx_hash, 'hex'), count(*)) AS sentence
FROM transfers
WHERE status = 'final' AND tx_hash IS NOT NULL
GROUP BY chain_id, tx_hash, log_index
HAVING count(*) > 1;

-- invariant: 1 credit_stands_on_a_canonical_block
SELECT ARRAY[t.id, t.payment_id] AS ids,
       format('transfer %s stands in a block %s that the chain %s does not have',
              t.id, t.block_number, t.chain_id) AS sentence
FROM transfers t
JOIN chain_headers h ON h.chain_id = t.chain_id AND h.number = t.block_number
WHERE t.status <> 'orphaned' AND h.hash <> t.block_hash;

-- invariant: 1 transfer_belongs_to_the_payment_of_its_address
SELECT ARRAY[t.id, t.payment_id] AS ids,
       format('transfer %s went to another address than that of payment %s', t.id, t.payment_id) AS sentence
FROM transfers t
JOIN payments p ON p.id = t.payment_id
WHERE t.recipient <> p.address;

-- invariant: 1 finality_follows_the_cursor
SELECT ARRAY[t.id, t.payment_id] AS ids,
       format('transfer %s in block %s is %s at head %s (safe %s, finalized %s), by %s and %s, %s', t.id, t.block_number,
              t.status, c.read_block, c.safe_block, c.finalized_block, t.required, t.finality,
              CASE WHEN t.is_verified THEN 'verified' ELSE 'not verified' END) AS sentence
FROM transfers t
JOIN chain_cursors c ON c.chain_id = t.chain_id
WHERE t.status <> 'orphaned'
  AND (t.status = 'final') <> (
      t.is_verified AND t.block_number <= c.read_block - t.required + 1
      AND CASE t.finality WHEN 'safe' THEN t.block_number <= coalesce(c.safe_block, -1)
                          WHEN 'finalized' THEN t.block_number <= coalesce(c.finalized_block, -1)
                          ELSE true END);

-- invariant: 1 received_is_the_sum_of_the_transfers
SELECT ARRAY[p.id] AS ids,
       format('payment %s says it received %s; its transfers are %s',
              p.id, p.received, least(coalesce(sum(t.amount), 0), 2::numeric ^ 256 - 1)) AS sentence
FROM payments p
LEFT JOIN transfers t ON t.payment_id = p.id AND t.status <> 'orphaned' AND (t.counts OR t.reason = 'after_completion')
GROUP BY p.id
HAVING p.received <> least(coalesce(sum(t.amount), 0), 2::numeric ^ 256 - 1);

-- invariant: 1 confirmed_is_the_sum_of_the_final_transfers
SELECT ARRAY[p.id] AS ids,
       format('payment %s says %s is confirmed; its final transfers are %s',
              p.id, p.confirmed, least(coalesce(sum(t.amount), 0), 2::numeric ^ 256 - 1)) AS sentence
FROM payments p
LEFT JOIN transfers t ON t.payment_id = p.id AND t.status = 'final' AND (t.counts OR t.reason = 'after_completion')
GROUP BY p.id
HAVING p.confirmed <> least(coalesce(sum(t.amount), 0), 2::numeric ^ 256 - 1);

-- invariant: 1 money_counts_from_the_choice_on
SELECT ARRAY[t.id, p.id] AS ids,
       format('transfer %s of block time %s counts towards payment %s, whose money counts after %s', t.id, t.block_time,
              p.id, coalesce(p.counts_after::text, 'an asset is chosen')) AS sentence
FROM transfers t
JOIN payments p ON p.id = t.payment_id
WHERE t.counts AND t.status <> 'orphaned' AND p.price IS NOT NULL
  AND (p.counts_after IS NULL OR t.block_time <= p.counts_after);

-- invariant: 1 amount_is_worth_the_price
-- The fewest base units that are worth no less. Products are exact, a quotient need not be.
SELECT ARRAY[p.id] AS ids,
       format('payment %s asks for %s base units of %s decimals for %s %s at the rate %s', p.id, p.amount, p.decimals,
              p.price, p.currency, p.quote ->> 'rate') AS sentence
FROM payments p
WHERE p.quote IS NOT NULL
  AND NOT (p.amount * (p.quote ->> 'rate')::numeric >= p.price * 10::numeric ^ p.decimals
           AND (p.amount - 1) * (p.quote ->> 'rate')::numeric < p.price * 10::numeric ^ p.decimals);

-- invariant: 2 versions_have_no_gaps
SELECT ARRAY[p.id] AS ids,
       format('payment %s is at version %s and has %s events, up to version %s',
              p.id, p.version, count(e.id), max(e.version)) AS sentence
FROM payments p
LEFT JOIN events e ON e.payment_id = p.id
GROUP BY p.id
HAVING count(DISTINCT e.version) <> count(e.id) OR count(e.id) <> p.version OR min(e.version) <> 1
    OR max(e.version) <> p.version;

-- invariant: 2 first_event_is_the_creation
SELECT ARRAY[e.id, e.payment_id] AS ids,
       format('version %s of payment %s is %s', e.version, e.payment_id, e.type) AS sentence
FROM events e
WHERE e.payment_id IS NOT NULL AND (e.version = 1) <> (e.type = 'payment.created');

-- invariant: 2 event_tells_of_its_own_version
SELECT ARRAY[e.id, e.payment_id] AS ids,
       format('event %s of version %s of payment %s tells of version %s of %s', e.id, e.version, e.payment_id,
              e.body #>> '{payment,version}', e.body #>> '{payment,id}') AS sentence
FROM events e
WHERE e.payment_id IS NOT NULL
  AND (e.body #>> '{payment,version}', e.body #>> '{payment,id}') IS DISTINCT FROM (e.version::text, e.payment_id);

-- invariant: 2 statuses_follow_the_arrows
WITH told AS (
    SELECT id, payment_id, version, type, body ->> 'previous_status' AS said_before,
           body #>> '{payment,status}' AS status,
           lag(body #>> '{payment,status}') OVER (PARTITION BY payment_id ORDER BY version) AS before
    FROM events
    WHERE payment_id IS NOT NULL
), arrows AS (
    SELECT before, after FROM jsonb_to_recordset(CAST(:arrows AS jsonb)) AS arrow(before text, after text)
)
SELECT ARRAY[id, payment_id] AS ids,
       format('payment %s went from %s to %s (event %s says: from %s)',
              payment_id, before, status, version, said_before) AS sentence
FROM told
WHERE before IS NOT NULL
  AND ((status <> before AND NOT EXISTS (SELECT FROM arrows a WHERE a.before = told.before AND a.after = told.status))
       OR (type <> 'transfer.unexpected' AND said_before IS DISTINCT FROM before));

-- invariant: 2 event_is_of_the_status_it_tells
SELECT ARRAY[id, payment_id] AS ids,
       format('event %s is %s and its payment %s', id, type, body #>> '{payment,status}') AS sentence
FROM events
WHERE type IN ('payment.detected', 'payment.confirmed', 'payment.settled', 'payment.expired', 'payment.canceled')
  AND type <> 'payment.' || (body #>> '{payment,status}');

-- invariant: 3 event_owed_has_a_delivery
-- An endpoint may have been made, changed or disabled since: which events were owed to it nobody can say any more.
-- To a payment's own URL that has answered 410 about an event, later ones are owed no more.
SELECT ARRAY[e.id, p.id] AS ids,
       format('event %s is owed to the URL of payment %s and has no delivery there', e.id, p.id) AS sentence
FROM events e
JOIN payments p ON p.id = e.payment_id
WHERE p.webhook_url IS NOT NULL
  AND NOT EXISTS (
      SELECT FROM webhook_deliveries d WHERE d.event_id = e.id AND d.url = p.webhook_url AND d.endpoint_id IS NULL)
  AND NOT EXISTS (
      SELECT FROM webhook_deliveries d
      JOIN webhook_attempts a ON a.delivery_id = d.id AND a.status_code = 410
      JOIN events before ON before.id = d.event_id AND before.version < e.version
      WHERE d.payment_id = p.id AND d.url = p.webhook_url AND d.endpoint_id IS NULL);

-- invariant: 3 delivery_is_its_events_own
SELECT array_remove(ARRAY[d.id, e.id, w.id], NULL) AS ids,
       format('delivery %s is of merchant %s and payment %s, its event of %s and %s, its endpoint of %s', d.id,
              d.merchant_id, d.payment_id, e.merchant_id, e.payment_id, coalesce(w.merchant_id, 'nobody')) AS sentence
FROM webhook_deliveries d
LEFT JOIN events e ON e.id = d.event_id
LEFT JOIN webhook_endpoints w ON w.id = d.endpoint_id
WHERE (e.id IS NOT NULL AND (d.merchant_id, d.payment_id) IS DISTINCT FROM (e.merchant_id, e.payment_id))
   OR (w.id IS NOT NULL AND d.merchant_id IS DISTINCT FROM w.merchant_id);

-- invariant: 3 delivery_is_made_scheduled_or_a_dead_letter
-- A row that was given up has a letter that was not replayed, open or purged; or the scheduler told of forgetting all
-- letters of that time. A row is kicked before its message can die. What ended with an endpoint that its owner closed
-- has no letter, and it may be open again by now: unless the delivery itself was answered 410, it is believed.
SELECT array_remove(ARRAY[d.id, d.event_id], NULL) AS ids,
       format('delivery %s is %s, and %s', d.id, d.status,
              CASE d.status WHEN 'pending' THEN 'not scheduled'
                            WHEN 'delivered' THEN 'no attempt of it succeeded'
                            ELSE 'no dead letter tells of it' END) AS sentence
FROM webhook_deliveries d
WHERE CASE d.status
          WHEN 'pending' THEN d.next_attempt_at IS NULL
          WHEN 'delivered' THEN NOT EXISTS (
              SELECT FROM webhook_attempts a WHERE a.delivery_id = d.id AND a.status_code BETWEEN 200 AND 299)
          ELSE NOT EXISTS (SELECT FROM dead_letters l WHERE l.row_id = d.id AND l.replayed_at IS NULL)
           AND NOT (d.endpoint_id IS NOT NULL AND d.dead_reason IS NOT DISTINCT FROM 'endpoint_disabled'
                    AND (d.attempts = d.attempts_before_schedule OR d.last_status_code IS DISTINCT FROM 410))
           AND NOT EXISTS (
              SELECT FROM audit_log f
              WHERE f.action = 'dead_letters.forget'
                AND CAST(f.detail ->> 'died_before' AS timestamptz) > greatest(d.created_at, d.kicked_at, (
                    SELECT max(a.at) FROM webhook_attempts a WHERE a.delivery_id = d.id)))
      END;

-- invariant: 3 email_is_sent_scheduled_or_a_dead_letter
SELECT ARRAY[m.id] AS ids,
       format('e-mail %s is %s, and no dead letter tells of it', m.id, m.status) AS sentence
FROM emails m
WHERE m.status IN ('dead', 'failed')
  AND NOT EXISTS (SELECT FROM dead_letters l WHERE l.row_id = m.id AND l.replayed_at IS NULL)
  AND NOT EXISTS (
      SELECT FROM audit_log f
      WHERE f.action = 'dead_letters.forget'
        AND CAST(f.detail ->> 'died_before' AS timestamptz) > greatest(m.created_at, m.kicked_at));

-- invariant: 3 job_that_died_is_a_dead_letter
SELECT ARRAY[j.id] AS ids,
       format('job %s ended by an exception, and no dead letter tells of it', j.id) AS sentence
FROM jobs j
WHERE j.error = :job_died
  AND NOT EXISTS (SELECT FROM dead_letters l WHERE l.row_id = j.id AND l.replayed_at IS NULL)
  AND NOT EXISTS (
      SELECT FROM audit_log f
      WHERE f.action = 'dead_letters.forget'
        AND CAST(f.detail ->> 'died_before' AS timestamptz) > greatest(j.created_at, j.kicked_at));

-- invariant: 4 address_belongs_to_one_payment
SELECT array_agg(payment_id ORDER BY payment_id) AS ids,
       format('address 0x%s was issued %s times', encode(address, 'hex'), count(*)) AS sentence
FROM deposit_addresses
GROUP BY address
HAVING count(*) > 1;

-- invariant: 4 index_is_used_once
SELECT array_agg(payment_id ORDER BY payment_id) AS ids,
       format('index %s of wallet %s was used %s times',
              derivation_index, encode(wallet_fingerprint, 'hex'), count(*)) AS sentence
FROM deposit_addresses
GROUP BY wallet_fingerprint, derivation_index
HAVING count(*) > 1;

-- invariant: 4 payment_has_the_address_issued_for_it
SELECT ARRAY[coalesce(p.id, a.payment_id)] AS ids,
       format('payment %s shows 0x%s and was issued 0x%s', coalesce(p.id, a.payment_id),
              encode(p.address, 'hex'), encode(a.address, 'hex')) AS sentence
FROM payments p
FULL JOIN deposit_addresses a ON a.payment_id = p.id
WHERE p.address IS DISTINCT FROM a.address;

-- invariant: 5 no_more_was_swept_than_came
WITH spent AS (
    SELECT chain_id, address, token, coalesce(sum(amount) FILTER (WHERE state <> 'failed'), 0) AS amount
    FROM sweep_intents
    WHERE kind = 'sweep' AND mined_block IS NOT NULL
    GROUP BY chain_id, address, token
    UNION ALL
    SELECT chain_id, address, decode(repeat('00', 20), 'hex'), coalesce(sum(gas_cost), 0)
    FROM sweep_intents
    WHERE kind = 'sweep' AND mined_block IS NOT NULL
    GROUP BY chain_id, address
), came AS (
    SELECT chain_id, recipient AS address, token, sum(amount) AS amount
    FROM transfers
    WHERE status <> 'orphaned' AND NOT is_own
    GROUP BY chain_id, recipient, token
    UNION ALL
    SELECT chain_id, address, decode(repeat('00', 20), 'hex'), sum(amount)
    FROM sweep_intents
    WHERE kind = 'topup' AND mined_block IS NOT NULL AND state <> 'failed'
    GROUP BY chain_id, address
), balance AS (
    SELECT chain_id, address, token, sum(amount) AS amount
    FROM (SELECT chain_id, address, token, amount FROM came
          UNION ALL SELECT chain_id, address, token, -amount FROM spent) AS moved
    GROUP BY chain_id, address, token
)
SELECT ARRAY['0x' || encode(address, 'hex'), '0x' || encode(token, 'hex')] AS ids,
       format('on chain %s %s more left 0x%s than came to it', chain_id, -amount, encode(address, 'hex')) AS sentence
FROM balance
WHERE amount < 0;

-- invariant: 5 nonce_is_used_once
SELECT array_agg(id ORDER BY id) AS ids,
       format('nonce %s of 0x%s on chain %s was given to %s intents',
              nonce, encode(sender, 'hex'), chain_id, count(*)) AS sentence
FROM sweep_intents
WHERE nonce IS NOT NULL
GROUP BY chain_id, sender, nonce
HAVING count(*) > 1;

-- invariant: 5 nonce_and_signature_are_stored_together
SELECT ARRAY[i.id] AS ids,
       format('intent %s is %s with nonce %s and %s signed transactions',
              i.id, i.state, i.nonce, count(a.intent_id)) AS sentence
FROM sweep_intents i
LEFT JOIN sweep_attempts a ON a.intent_id = i.id
GROUP BY i.id
HAVING (i.nonce IS NULL) <> (count(a.intent_id) = 0);

-- invariant: 5 nonce_was_taken_from_its_signer
SELECT ARRAY[i.id] AS ids,
       format('intent %s has nonce %s; the next of 0x%s is %s',
              i.id, i.nonce, encode(i.sender, 'hex'), s.next_nonce) AS sentence
FROM sweep_intents i
LEFT JOIN signers s ON s.chain_id = i.chain_id AND s.sender = i.sender
WHERE i.nonce IS NOT NULL AND (s.next_nonce IS NULL OR i.nonce >= s.next_nonce);

-- invariant: 5 what_was_mined_was_stored
SELECT ARRAY[i.id] AS ids,
       format('intent %s was mined as 0x%s, which is none of its own', i.id, encode(i.mined_tx_hash, 'hex')) AS sentence
FROM sweep_intents i
WHERE i.mined_tx_hash IS NOT NULL
  AND NOT EXISTS (SELECT FROM sweep_attempts a WHERE a.intent_id = i.id AND a.tx_hash = i.mined_tx_hash);

-- invariant: 6 key_made_one_object
SELECT array_agg(response::jsonb ->> 'id') AS ids,
       format('idempotency key %s made %s objects', key, count(*)) AS sentence
FROM idempotency_keys
WHERE status BETWEEN 200 AND 299
GROUP BY merchant_id, route, key
HAVING count(*) > 1;

-- invariant: 6 object_was_made_by_one_key
SELECT ARRAY[response::jsonb ->> 'id'] AS ids,
       format('%s was made under %s idempotency keys', response::jsonb ->> 'id', count(*)) AS sentence
FROM idempotency_keys
WHERE status = 201
GROUP BY response::jsonb ->> 'id'
HAVING count(*) > 1;

-- invariant: 6 stored_answer_is_of_an_object_that_exists
SELECT ARRAY[k.response::jsonb ->> 'id'] AS ids,
       format('idempotency key %s answers with a payment that does not exist', k.key) AS sentence
FROM idempotency_keys k
WHERE k.status = 201 AND k.response::jsonb ->> 'object' = 'payment'
  AND NOT EXISTS (SELECT FROM payments p WHERE p.id = k.response::jsonb ->> 'id');

-- invariant: 8 cursor_stands_on_a_stored_header
SELECT ARRAY[c.chain_id::text] AS ids,
       format('the cursor of chain %s stands on block %s, which is not the stored one',
              c.chain_id, c.read_block) AS sentence
FROM chain_cursors c
LEFT JOIN chain_headers h ON h.chain_id = c.chain_id AND h.number = c.read_block
WHERE h.hash IS DISTINCT FROM c.read_hash;

-- invariant: 8 headers_are_one_chain_up_to_the_cursor
WITH linked AS (
    SELECT chain_id, number, parent_hash,
           lag(number) OVER w AS number_before, lag(hash) OVER w AS hash_before
    FROM chain_headers
    WINDOW w AS (PARTITION BY chain_id ORDER BY number)
)
SELECT ARRAY[l.chain_id::text, l.number::text] AS ids,
       format('block %s of chain %s does not continue the one before it', l.number, l.chain_id) AS sentence
FROM linked l
WHERE l.number_before IS NOT NULL AND (l.number <> l.number_before + 1 OR l.parent_hash <> l.hash_before)
UNION ALL
SELECT ARRAY[h.chain_id::text, h.number::text],
       format('block %s of chain %s is stored and above what was read', h.number, h.chain_id)
FROM chain_headers h
LEFT JOIN chain_cursors c ON c.chain_id = h.chain_id
WHERE c.read_block IS NULL OR h.number > c.read_block;

-- invariant: 8 transfers_are_of_blocks_that_were_read
SELECT ARRAY[t.id] AS ids,
       format('transfer %s is of block %s of chain %s, which was not read for 0x%s',
              t.id, t.block_number, t.chain_id, encode(t.token, 'hex')) AS sentence
FROM transfers t
WHERE t.status <> 'orphaned'
  AND NOT EXISTS (
      SELECT FROM coverage v
      WHERE v.chain_id = t.chain_id AND v.token = t.token AND t.block_number BETWEEN v.first_block AND v.last_block);

-- invariant: 8 cursor_passed_no_block_that_was_not_read
-- Coin is never listed later, so what was read for it has no gap. What tokens lack, a backfill reads.
WITH coin AS (
    SELECT c.chain_id, c.start_block, v.first_block, v.last_block,
           max(v.last_block) OVER (PARTITION BY c.chain_id ORDER BY v.first_block, v.last_block, v.id
                                   ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
    FROM chain_cursors c
    JOIN coverage v ON v.chain_id = c.chain_id AND v.first_block <= c.read_block
    WHERE v.token = decode(repeat('00', 20), 'hex')
), gaps AS (
    SELECT chain_id, greatest(reached, start_block) + 1 AS first, first_block - 1 AS last
    FROM coin
    UNION ALL
    SELECT c.chain_id, greatest(c.start_block, max(coin.last_block)) + 1, c.read_block
    FROM chain_cursors c
    LEFT JOIN coin ON coin.chain_id = c.chain_id
    GROUP BY c.chain_id
)
SELECT ARRAY[chain_id::text, first::text] AS ids,
       format('blocks %s to %s of chain %s were passed and not read', first, last, chain_id) AS sentence
FROM gaps
WHERE first <= last;

-- invariant: 8 ranges_that_were_read_are_linked
-- A parent of zeros is one that nobody noted: the range was read before such notes were taken.
WITH told AS (
    SELECT v.id, v.chain_id, v.last_block AS number, v.last_hash <> h.hash AS differs
    FROM coverage v
    JOIN chain_headers h ON h.chain_id = v.chain_id AND h.number = v.last_block
    UNION ALL
    SELECT v.id, v.chain_id, v.first_block, v.parent_hash <> h.parent_hash
    FROM coverage v
    JOIN chain_headers h ON h.chain_id = v.chain_id AND h.number = v.first_block
    WHERE v.parent_hash <> decode(repeat('00', 32), 'hex')
    UNION ALL
    SELECT v.id, v.chain_id, v.first_block, v.parent_hash <> before.last_hash
    FROM coverage v
    JOIN coverage before ON before.chain_id = v.chain_id AND before.token = v.token
                        AND before.last_block = v.first_block - 1
    WHERE v.parent_hash <> decode(repeat('00', 32), 'hex')
)
SELECT ARRAY[t.chain_id::text, t.number::text, t.id::text] AS ids,
       format('a range that was read of chain %s has another block %s than was read beside it',
              t.chain_id, t.number) AS sentence
FROM told t
JOIN chain_cursors c ON c.chain_id = t.chain_id AND t.number <= c.read_block
WHERE t.differs;
