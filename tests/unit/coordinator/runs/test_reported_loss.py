import pytest

from covey.coordinator.runs.steps.evaluation import reported_loss


@pytest.mark.parametrize(
    ("metrics", "loss"),
    [
        ({"loss": [6.0, 4.0], "accuracy": [1.0, 4.0]}, 1.5),
        ({"loss": [-2.0, 4.0]}, -0.5),
        ({"loss": [1.0, 0.0]}, None),
        ({"loss": [1e300, 1e-300]}, None),
        ({"evaluation/loss": [6.0, 4.0]}, None),
        ({}, None),
    ],
)
def test_the_loss_is_the_mean_of_training_or_nothing(metrics, loss):
    assert reported_loss(metrics) == loss
