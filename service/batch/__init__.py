"""python -m service.batch: a whole collection of images through the defence, on one machine or on a Ray cluster."""
