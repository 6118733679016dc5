"""Results of the two papers, remade at a size that two CPU cores can carry: one module an experiment."""
