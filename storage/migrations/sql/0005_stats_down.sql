-- Totals can be made again from the record: nothing is lost with them.

DROP TRIGGER receipts_stats_insert ON receipts;
DROP TRIGGER refunds_stats_insert ON refunds;
DROP TRIGGER refunds_stats_update ON refunds;
DROP TRIGGER payments_stats_insert ON payments;
DROP TRIGGER payments_stats_update ON payments;
DROP FUNCTION
    stats_rebuild(),
    stats_fold(integer),
    stats_sum(integer[], integer[]),
    stats_note_receipt(),
    stats_note_refund(),
    stats_note_payment(),
    stats_of_receipt(receipts),
    stats_of_refund(refunds),
    stats_of_payment(payments),
    stats_step(bigint);
DROP TABLE stats_changes, stats_money, stats_payments, stats_declines;

DROP INDEX payments_application_created_at_id_idx;
DROP INDEX payments_application_user_id_created_at_id_idx;
DROP INDEX payments_filtered_idx;
DROP INDEX payments_user_filtered_idx;
CREATE INDEX payments_application_created_at_idx ON payments (application, created_at);
CREATE INDEX payments_application_gateway_id_idx ON payments (application, gateway, id);
CREATE INDEX payments_application_id_idx ON payments (application, id);
CREATE INDEX payments_application_status_id_idx ON payments (application, status, id);
CREATE INDEX payments_application_type_id_idx ON payments (application, type, id);
CREATE INDEX payments_application_user_id_id_idx ON payments (application, user_id, id);
