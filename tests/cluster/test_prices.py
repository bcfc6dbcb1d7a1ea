"""Price curves: what an amount costs, and the most that money buys."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.cluster import LinearPrice, SteppedPrice, TablePrice
from rightbatch.errors import InputError

positive = st.floats(0.01, 1e4)
nonnegative = st.floats(0, 1e4)
rises = st.lists(st.floats(0.1, 100), min_size=1, max_size=6)

linears = st.builds(
    LinearPrice, price_per_unit=positive, fixed_price=nonnegative, included=nonnegative
)
steppeds = st.builds(
    SteppedPrice,
    step=positive,
    price_per_step=positive,
    fixed_price=nonnegative,
    included=nonnegative,
)


@st.composite
def tables(draw):
    amounts = np.cumsum(draw(rises))
    prices = np.cumsum([draw(st.floats(0.1, 100)) for _ in amounts])
    return TablePrice(
        amounts=amounts.tolist(),
        prices=prices.tolist(),
        listed_only=draw(st.booleans()),
    )


curves = st.one_of(linears, steppeds, tables())


@given(curve=curves, amounts=st.lists(positive, min_size=2, max_size=5))
def test_more_never_costs_less(curve, amounts):
    prices = np.asarray(curve.price(sorted(amounts)))
    assert np.all(prices[1:] >= prices[:-1])


@given(curve=curves, amount=positive)
def test_the_price_of_an_amount_buys_at_least_that_amount(curve, amount):
    price = curve.price(amount)
    if np.isfinite(price):
        assert curve.amount_for(price * (1 + 1e-12)) >= amount * (1 - 1e-9)


@given(curve=curves, money=st.floats(0, 1e5))
def test_what_money_buys_costs_no_more_than_the_money(curve, money):
    amount = curve.amount_for(money)
    if amount > 0:
        assert curve.price(amount) <= money * (1 + 1e-9) + 1e-9


@given(curve=curves, money=st.lists(st.floats(0, 1e5), min_size=1, max_size=5))
def test_arrays_of_money_buy_what_each_buys_alone(curve, money):
    together = curve.amount_for(np.array(money))
    assert together.tolist() == [curve.amount_for(each) for each in money]


def test_a_part_of_a_step_costs_as_much_as_the_whole():
    price = SteppedPrice(step=8, price_per_step=100.0, fixed_price=5.0)
    assert price.price([1, 8, 8.1, 16]).tolist() == [105.0, 105.0, 205.0, 205.0]
    assert price.sizes(20).tolist() == [8.0, 16.0, 20.0]
    assert price.amount_for(204.0) == 8.0


def test_rounding_does_not_cost_a_step():
    price = SteppedPrice(step=0.1, price_per_step=1.0)
    assert price.price(0.3) == 3.0
    assert price.amount_for(3.0) == pytest.approx(0.3)


def test_what_is_included_costs_nothing():
    assert LinearPrice(price_per_unit=3.0, included=2.0).price([1, 2, 4]).tolist() == [
        0.0,
        0.0,
        6.0,
    ]


def test_a_table_is_joined_by_lines_or_sold_as_listed():
    values = {"amounts": [1, 2, 4], "prices": [0, 300, 1200]}
    assert TablePrice(**values).price([1.5, 3]).tolist() == [150.0, 750.0]
    listed = TablePrice(**values, listed_only=True)
    assert listed.price([1, 1.5, 4]).tolist() == [0.0, 300.0, 1200.0]
    assert listed.price(5) == np.inf
    assert listed.amount_for([299, 300, 1e9]).tolist() == [1.0, 2.0, 4.0]
    assert listed.sizes(3).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (LinearPrice, {"price_per_unit": 0.0}, "`price_per_unit` must be positive"),
        (LinearPrice, {"price_per_unit": -1.0}, "`price_per_unit` must be positive"),
        (
            LinearPrice,
            {"price_per_unit": 1.0, "fixed_price": -1.0},
            "`fixed_price` must not be negative",
        ),
        (
            SteppedPrice,
            {"step": 0.0, "price_per_step": 1.0},
            "`step` must be positive",
        ),
        (
            SteppedPrice,
            {"step": 1.0, "price_per_step": 0.0},
            "`price_per_step` must be positive",
        ),
        (TablePrice, {"amounts": [1, 2], "prices": [0, 0]}, "must be positive, got 0"),
        (TablePrice, {"amounts": [1, 2], "prices": [-1, 2]}, "must not be negative"),
        (TablePrice, {"amounts": [1, 2], "prices": [3]}, "as many as `amounts`"),
        (TablePrice, {"amounts": [2, 1], "prices": [1, 2]}, "must increase"),
        (TablePrice, {"amounts": [1, 2], "prices": [2, 1]}, "must not fall"),
        (TablePrice, {"amounts": [], "prices": []}, "must be a list of numbers"),
    ],
)
def test_a_price_that_is_none_is_refused(kind, values, message):
    with pytest.raises(InputError, match=message):
        kind(**values)
