import pytest

from agepipe.data.filenames import Label, Reject, class_folder, parse


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("25_0_2_20170104020210475.jpg.chip.jpg", Label(25, 0, 2)),
        ("116_1_4_20170104020210475.jpg", Label(116, 1, 4)),
        ("39_1_20170116174525125.jpg.chip.jpg", Label(39, 1, None)),
        ("61_1_20170109142408075.jpg.chip.jpg", Label(61, 1, None)),
        ("55_0_0_20170116232725357jpg.chip.jpg", Label(55, 0, 0)),
        ("24_0_1_20170116220224657 .jpg.chip.jpg", Label(24, 0, 1)),
        (" 24_0_1_20170116220224657.jpg", Label(24, 0, 1)),
        ("28_1_2_201701161846515488.jpg.chip.jpg", Label(28, 1, 2)),
        ("14_0_0_2017011022340900.jpg.chip.jpg", Label(14, 0, 0)),
        ("53__0_20170116184028385.jpg", Label(53, None, 0)),
        ("53_20170116184028385.jpg", Label(53, None, None)),
        ("53_3_9_20170116184028385.jpg", Label(53, None, None)),
        ("1_0_0_20161219140623097.jpg.chip.jpg", Label(1, 0, 0)),
    ],
)
def test_the_age_is_read_and_what_is_missing_is_none(name: str, label: Label) -> None:
    assert parse(name) == label


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("holiday.jpg", "unparsable name"),
        ("IMG_2034.jpg", "unparsable name"),
        ("25.jpg", "unparsable name"),
        ("", "unparsable name"),
        ("_0_2_20170104020210475.jpg", "no age"),
        ("x_0_2_20170104020210475.jpg", "no age"),
        ("-5_0_2_20170104020210475.jpg", "no age"),
        ("2.5_0_2_20170104020210475.jpg", "no age"),
        ("0_0_2_20170104020210475.jpg", "age out of range"),
        ("200_0_2_20170104020210475.jpg", "age out of range"),
        (f"{'9' * 5000}_0_2_20170104020210475.jpg", "age out of range"),
        ("٢٥_0_2_20170104020210475.jpg", "no age"),
    ],
)
def test_what_has_no_usable_age_says_why(name: str, reason: str) -> None:
    found = parse(name)
    assert isinstance(found, Reject)
    assert found.reason == reason
    assert found.detail


def test_the_allowed_ages_are_a_setting() -> None:
    assert parse("0_0_2_20170104020210475.jpg", min_age=0) == Label(0, 0, 2)
    assert isinstance(parse("90_0_2_20170104020210475.jpg", max_age=80), Reject)


@pytest.mark.parametrize("name", ["0", "13", "1-2", "over80", "81+"])
def test_folder_names_of_classes_are_recognised(name: str) -> None:
    assert class_folder(name) == name


@pytest.mark.parametrize("name", ["", "UTKFace", "part1", "crop_part1"])
def test_other_folder_names_are_no_classes(name: str) -> None:
    assert class_folder(name) is None
