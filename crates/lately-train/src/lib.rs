//! From logs to a promoted version: join, dataset, trainer, evaluation, gate, publish.
