"""Files that data sets are published in: where they are, how long, and their sums.

Sizes and sums are those of the publishers: the CIFAR page and the Fashion-MNIST
repository name theirs, and MNIST's are quoted everywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFile:
    """A file as it was published.

    Args:
        name: What it is called.
        size: Its length in bytes.
        md5: Its MD5 sum, in hexadecimal.
        urls: Where it can be fetched, the first choice first.

    Example:
        >>> PUBLISHED["cifar10"][0].name
        'cifar-10-python.tar.gz'
    """

    name: str
    size: int
    md5: str
    urls: tuple[str, ...]


def _file(name: str, size: int, md5: str, *folders: str) -> PublishedFile:
    urls = tuple(folder + name for folder in folders)
    return PublishedFile(name=name, size=size, md5=md5, urls=urls)


_MNIST = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_FASHION = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
_CIFAR = ("https://www.cs.toronto.edu/~kriz/",)

PUBLISHED: Mapping[str, tuple[PublishedFile, ...]] = {
    "mnist": (
        _file(
            "train-images-idx3-ubyte.gz",
            9_912_422,
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            *_MNIST,
        ),
        _file(
            "train-labels-idx1-ubyte.gz",
            28_881,
            "d53e105ee54ea40749a09fcbcd1e9432",
            *_MNIST,
        ),
    ),
    "fashion-mnist": (
        _file(
            "train-images-idx3-ubyte.gz",
            26_421_880,
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            *_FASHION,
        ),
        _file(
            "train-labels-idx1-ubyte.gz",
            29_515,
            "25c81989df183df01b3e8a0aad5dffbe",
            *_FASHION,
        ),
    ),
    "cifar10": (
        _file(
            "cifar-10-python.tar.gz",
            170_498_071,
            "c58f30108f718f92721af3b95e74349a",
            *_CIFAR,
        ),
        _file(
            "cifar-10-binary.tar.gz",
            170_052_171,
            "c32a1d4ab5d03f1284b67883e8d87530",
            *_CIFAR,
        ),
    ),
    "cifar100": (
        _file(
            "cifar-100-python.tar.gz",
            169_001_437,
            "eb9058c3a382ffc7106e4002c42a8d85",
            *_CIFAR,
        ),
        _file(
            "cifar-100-binary.tar.gz",
            168_513_733,
            "03b5dce01913d631647c71ecec9e9cb8",
            *_CIFAR,
        ),
    ),
}
