"""Colour profiles (ICC): what the numbers of a photo mean, and their way to sRGB and back.

A photo whose numbers are not red, green and blue must be converted; one that has them keeps them,
whatever its profile, so that an edit can leave its pixels alone.
"""

from __future__ import annotations

import contextlib
import io
from typing import cast

from PIL import Image, ImageCms

Profile = ImageCms.ImageCmsProfile | ImageCms.core.CmsProfile

# A profile of a printing press has one or two; more is no profile.
MAX_PROFILE_BYTES = 4_000_000

_BROKEN = (ImageCms.PyCMSError, OSError, ValueError, TypeError)


def as_rgb(image: Image.Image) -> Image.Image:
    """Return a new image of mode RGB, or of mode RGBA where the image has transparency.

    RGB keeps its numbers and its profile. Grey, CMYK and Lab with a profile become sRGB as it says
    (perceptual intent); without one, grey is spread over the channels and CMYK inverted. The
    result has a profile only where it is about the numbers of the result.

    Raises:
        ValueError: a mode that Pillow cannot convert.
    """
    if image.mode == "La":
        image = _with_info(image.convert("LA"), image)
    if image.has_transparency_data:
        if image.mode == "LA" and _profile(image, "GRAY") is not None:
            colours = as_rgb(_with_info(image.getchannel("L"), image))
            colours.putalpha(image.getchannel("A"))
            return colours
        return _checked(image.convert("RGBA"))
    if image.mode in ("1", "L") and (profile := _profile(image, "GRAY")) is not None:
        return _converted(image.convert("L"), profile)
    if image.mode == "CMYK" and (profile := _profile(image, "CMYK")) is not None:
        return _converted(image, profile)
    if image.mode == "LAB":
        return _converted(image, _profile(image, "Lab") or ImageCms.createProfile("LAB"))
    return _checked(image.convert("RGB"))


def rgb_profile(image: Image.Image) -> ImageCms.ImageCmsProfile | None:
    """Return the profile of an RGB (or RGBA) image whose colours are others than sRGB's.

    None where there is none, where it is sRGB, or where it makes no sense.
    """
    profile = _profile(image, "RGB")
    return None if profile is None or _is_srgb(profile) else profile


def to_srgb(image: Image.Image, profile: ImageCms.ImageCmsProfile | None) -> Image.Image:
    """Return an RGB (or RGBA) image with its colours as sRGB, no profile on it; None changes none.

    Alpha stays as it is.
    """
    return _between(image, profile, ImageCms.createProfile("sRGB"))


def from_srgb(image: Image.Image, profile: ImageCms.ImageCmsProfile | None) -> Image.Image:
    """Return an sRGB image with its colours as numbers of a profile; the inverse of `to_srgb`."""
    return _between(image, ImageCms.createProfile("sRGB"), profile)


def _between(image: Image.Image, source: Profile | None, target: Profile | None) -> Image.Image:
    if source is None or target is None:
        return image
    # A profile without a way in this direction is as good as none.
    with contextlib.suppress(*_BROKEN):
        image = cast(Image.Image, ImageCms.profileToProfile(image, source, target))
        image.info.pop("icc_profile", None)
    return image


def _profile(image: Image.Image, space: str) -> ImageCms.ImageCmsProfile | None:
    """Return the image's profile where it can be read and is of a colour space."""
    content = image.info.get("icc_profile", b"")
    if not content or len(content) > MAX_PROFILE_BYTES:
        return None
    with contextlib.suppress(*_BROKEN):
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        if profile.profile.xcolor_space.strip() == space:
            return profile
    return None


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    return "srgb" in (profile.profile.profile_description or "").casefold()


def _converted(image: Image.Image, profile: Profile) -> Image.Image:
    """Return an image of another colour space as sRGB; as Pillow converts it if that fails."""
    try:
        found = cast(
            Image.Image,
            ImageCms.profileToProfile(
                image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
            ),
        )
    except _BROKEN:
        found = image.convert("RGB")
    found = _with_info(found, image)
    found.info.pop("icc_profile", None)
    return found


def _checked(image: Image.Image) -> Image.Image:
    """Leave a profile on an RGB image only where it is one of RGB."""
    if "icc_profile" in image.info and _profile(image, "RGB") is None:
        del image.info["icc_profile"]
    return image


def _with_info(image: Image.Image, source: Image.Image) -> Image.Image:
    image.info = {**source.info}
    return image
