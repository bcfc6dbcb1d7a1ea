"""The batch of a Hugging Face Trainer follows a policy: :class:`BatchSizeCallback`."""

try:
    import transformers as _transformers
except ImportError as error:
    from rightbatch.errors import InputError

    raise InputError(
        "rightbatch.integrations.transformers: transformers is not installed.",
        "pip install 'rightbatch[hf]'",
    ) from error

from rightbatch.integrations.transformers.callback import BatchSizeCallback

__all__ = ["BatchSizeCallback"]

del _transformers
