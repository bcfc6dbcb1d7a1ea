"""Which policy an estimator follows unless told: held-out score, updates, seconds.

.venv/bin/python benchmarks/estimator_policies.py

Adam at lr .001 and all other defaults, on standardised data, three quarters of it for
training; means over the seeds. Seconds are of one processor.
"""

import time
import warnings

import numpy as np
import torch
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    make_classification,
    make_friedman1,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler, scale

from rightbatch.integrations.sklearn import AdaptiveClassifier, AdaptiveRegressor

POLICIES = ("constant", "noise-following", "geodamp", "padadamp:rate=.1")
SEEDS = (0, 1)
EPOCHS = 100

torch.set_num_threads(1)
# Its own network says so wherever it makes all epochs.
warnings.simplefilter("ignore", ConvergenceWarning)

# 1) The data: three to classify, two to regress.
classes = make_classification(2000, 30, n_informative=15, n_classes=4, random_state=0)
numbers = make_friedman1(2000, noise=1, random_state=0)
data = {
    "digits": load_digits(return_X_y=True),
    "cancer": load_breast_cancer(return_X_y=True),
    "classes": classes,
    "diabetes": load_diabetes(return_X_y=True),
    "friedman": numbers,
}
regressions = ("diabetes", "friedman")


def estimator(policy: str, name: str, seed: int):
    """Return an estimator, scikit-learn's own network for no policy."""
    if not policy:
        kind = MLPRegressor if name in regressions else MLPClassifier
        return kind(max_iter=EPOCHS, random_state=seed)
    kind = AdaptiveRegressor if name in regressions else AdaptiveClassifier
    return kind(policy=policy, max_epochs=EPOCHS, random_state=seed)


def measured(policy: str, name: str, seed: int) -> tuple[float, int, float]:
    """Return the held-out score, updates (0 where unknown) and seconds of a fit."""
    X, y = data[name]
    y = scale(y) if name in regressions else y
    X, X_test, y, y_test = train_test_split(X, y, random_state=seed)
    scaler = StandardScaler().fit(X)
    made = estimator(policy, name, seed)
    begin = time.process_time()
    made.fit(scaler.transform(X), y)
    seconds = time.process_time() - begin
    updates = len(made.history_) if policy else 0
    return made.score(scaler.transform(X_test), y_test), updates, seconds


# 2) Every policy on each; a network of scikit-learn's beside them.
print(f"{'':17}" + "".join(f"{name:>21}" for name in data))
print(f"{'':17}" + f"{'score updates  sec':>21}" * len(data))
for policy in (*POLICIES, ""):
    cells = []
    for name in data:
        runs = np.array([measured(policy, name, seed) for seed in SEEDS])
        score, updates, seconds = runs.mean(axis=0)
        cells.append(f"{score:9.3f} {updates:6.0f} {seconds:4.1f}")
    print(f"{policy or 'MLP, batch 200':17}" + "".join(cells), flush=True)
