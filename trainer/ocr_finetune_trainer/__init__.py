"""The trainer: prepares data, trains, evaluates and exports models, on this machine or in a pod."""
