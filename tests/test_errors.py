from __future__ import annotations

import inspect
import pickle

import pytest

from pylon_zoo import errors
from pylon_zoo.errors import MissingExtraError, PylonZooError, UnknownNameError, unknown_name


def test_every_error_is_a_pylon_zoo_error_and_a_builtin_one() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c is not PylonZooError]
    classes = [c for c in classes if c.__module__ == errors.__name__]
    assert len(classes) == len(errors.__all__) - 2
    for cls in classes:
        if issubclass(cls, Warning):
            continue
        assert issubclass(cls, PylonZooError)
        assert any(c.__module__ == "builtins" for c in cls.__mro__ if c not in Exception.__mro__)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet5O", ("resnet50",)),
        ("ResNet50", ("resnet50", "resnet18")),
        ("densenet", ("densenet121",)),
        ("zzzzzz", ()),
    ],
)
def test_nearest_names(name: str, expected: tuple[str, ...]) -> None:
    known = ["resnet18", "resnet50", "densenet121"]
    error = unknown_name("encoder", name, known, hint="See list_encoders().")
    assert error.suggestions[: len(expected)] == expected
    assert (error.kind, error.name) == ("encoder", name)
    message = str(error)
    assert message.startswith(f"Unknown encoder {name!r}.")
    assert message.endswith("See list_encoders().")
    if expected:
        assert f"Did you mean {expected[0]!r}" in message
    else:
        assert "Known: densenet121, resnet18, resnet50." in message
    with pytest.raises(LookupError):
        raise error


def test_unknown_name_survives_a_process_border() -> None:
    error = unknown_name("encoder", "resnet5O", ["resnet50"])
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, UnknownNameError)
    assert (str(copy), copy.suggestions) == (str(error), ("resnet50",))
    missing = MissingExtraError("onnx", "export", "Exporting")
    assert str(pickle.loads(pickle.dumps(missing))) == str(missing)


def test_missing_extra_names_the_remedy() -> None:
    error = MissingExtraError("pydicom", "dicom", "Reading DICOM files")
    assert "Reading DICOM files needs the package 'pydicom'" in str(error)
    assert "pip install 'pylon-zoo[dicom]'" in str(error)
    assert isinstance(error, ImportError)
