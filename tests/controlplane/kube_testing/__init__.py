"""A real Kubernetes control plane for tests: etcd, API server, controller manager, scheduler, and kwok for the nodes.

The fixtures are in ``tests/controlplane/conftest.py``:

* ``plane`` (session): a started :class:`~kube_testing.control_plane.ControlPlane` with four fake nodes of 8 GPUs.
* ``namespace`` (test): the name of a fresh namespace whose pods are scripted for this test only.
* ``pods`` (test): the :class:`~kube_testing.fake_nodes.PodScript` of that namespace.
* ``nodes`` (session): :class:`~kube_testing.fake_nodes.FakeNodes`, to add a node, to make one fail and come back.

Use::

    def test_a_failed_pod_fails_its_job(plane, namespace, pods):
        pods.exits(code=65, after=0.2, message="no labels", job="train", index=1)   # else pods run until told otherwise
        plane.kube.create(job(namespace=namespace))
        plane.kube.wait("Job", "train", namespace, lambda job: condition(job, "Failed"))

A pod with no script runs for ever; a deleted pod ends with 143 and goes, as on a real node. Every pod gets an own
address in 127.100.0.0/16, so a test may serve ``/progress`` there (``bind((pod_ip, port))``), and nothing ever leaves
the machine. A program under test is a process of its own with its own rights::

    kubeconfig = plane.service_account(name="operator", namespace=namespace, cluster_role="ocr-finetune-operator")
    command = [sys.executable, "-m", "ocr_finetune_operator"]
    operator = plane.spawn("operator", command, env={"KUBECONFIG": str(kubeconfig)})
    ...
    operator.kill(); operator.start()

``plane.requests(user)`` lists the API requests of a service account from the audit log. ``plane.restart_api_server()``
and ``plane.restart_etcd()`` do what they say. The end of every log is printed when a test fails.
"""
