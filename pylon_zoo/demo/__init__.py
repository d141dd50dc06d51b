"""A web page to try checkpoints on images: ``pylon-zoo demo`` (extra ``demo``)."""
