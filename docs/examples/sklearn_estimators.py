"""Estimators in a pipeline and a grid search, with a batch that follows the noise.

.venv/bin/python docs/examples/sklearn_estimators.py
"""

from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rightbatch.integrations.sklearn import AdaptiveClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
classifier = AdaptiveClassifier(max_epochs=10, random_state=0)
search = GridSearchCV(
    make_pipeline(StandardScaler(), classifier),
    {"adaptiveclassifier__module__hidden": [16, 64]},
    cv=2,
)
search.fit(X_train, y_train)
best = search.best_estimator_[-1]
print(search.best_params_)
print(f"{search.score(X_test, y_test):.3f} of the test digits are right")
print(f"{len(best.history_)} updates, batch {best.batch_size_curve_.max()} at most")
