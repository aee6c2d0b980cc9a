"""A whole Kubernetes cluster on one machine, for ``make e2e``: control plane, CoreDNS, and nodes with real kubelets.

Each node is a network, mount and host name namespace of its own with containerd, kubelet and kube-proxy in it. Needs
Linux and root; :func:`machine.missing` says what else is missing. Images are built by buildah from the repository's
Dockerfile, on a base made by debootstrap, and handed to containerd without a registry.
"""
