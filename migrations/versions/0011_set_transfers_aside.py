"""Who may accept a payment may say of its transfers what follows from that, and may change nothing else of them."""

from alembic import op

revision = "0011"
down_revision = "0010"


# There is no way down: what a migration takes away, money may hang on. Go forward with another one.
def upgrade() -> None:
    # BEGIN ATOMIC binds each name here and now: with the rights of its owner it runs, and no search_path misleads it.
    op.execute(
        """
        CREATE FUNCTION set_transfers_aside(ids text[]) RETURNS void LANGUAGE sql SECURITY DEFINER
        BEGIN ATOMIC
            UPDATE transfers SET counts = false, reason = 'after_completion'
            FROM payments
            WHERE transfers.id = ANY (ids) AND transfers.status = 'seen' AND transfers.counts
                AND payments.id = transfers.payment_id AND payments.accepted_at IS NOT NULL;
        END
        """
    )
    op.execute("REVOKE EXECUTE ON FUNCTION set_transfers_aside(text[]) FROM PUBLIC")
