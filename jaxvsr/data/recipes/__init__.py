"""One file a data set: vsi100k (vsGRPO)."""
