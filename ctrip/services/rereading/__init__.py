"""Blocks that lie behind the cursor, read again or for the first time: what differs from the rows is put right.

processing    one payment, for an operator who asks why it stands so
rescanning    a range of blocks, for an operator who trusts it no more
backfilling   what was never read of an asset, because it was listed later
believing     whether an endpoint that tells of such blocks is on the chain that was read
correcting    what all of them do with what they have read
"""

from ctrip.services.rereading.backfilling import backfill, schedule_backfills
from ctrip.services.rereading.processing import process_payment
from ctrip.services.rereading.rescanning import Rescanned, rescan_chain

__all__ = ["Rescanned", "backfill", "process_payment", "rescan_chain", "schedule_backfills"]
