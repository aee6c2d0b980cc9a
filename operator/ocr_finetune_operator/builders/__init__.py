"""From a spec to manifests: pure functions, tested against golden files."""
