"""All that a registered version is made of: class order, preprocessing, decoding, calibration, lineage, predictor."""
