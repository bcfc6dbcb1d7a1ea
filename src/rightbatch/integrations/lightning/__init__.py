"""The batch of a Lightning Trainer follows a policy; an extra, ``[lightning]``.

=============  =============================================================
``callback``   :class:`BatchSizeCallback`, all there is to use
``loading``    what the user's loader says of its micro-batches
``refusals``   what of a Trainer does not go with a batch that changes
``schedules``  the Trainer's schedules, as the updates move them
=============  =============================================================
"""

from rightbatch.integrations.lightning.callback import BatchSizeCallback

__all__ = ["BatchSizeCallback"]
