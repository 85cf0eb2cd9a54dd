"""What is scored, for Prometheus: how much, how fast, what came out, and how like the training cohort it is."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from lymphcad.bundle import bundle_label
from lymphcad.errors import CommandError, Reason, Refusal
from lymphcad.reference import QUANTITIES, mean_hu

if TYPE_CHECKING:
    from lymphcad.bundle import Manifest
    from lymphcad_client.observing import Seen

_TWENTIETHS = tuple(number / 20 for number in range(1, 20))
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SPACINGS_MM = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.5, 2.0)
_HU = (-500, -200, -100, -50, -25, 0, 25, 50, 75, 100, 150, 200, 400)


class Metrics:
    """Counts requests; see `lymphcad_client.observing.Observer`. No label holds anything of a patient.

    Attributes
    ----------
    registry
        What is given out.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._bundles: set[str] = set()
        self._lock = threading.Lock()
        self._nodes = Counter(
            "lymphcad_nodes", "Nodes by what became of them.", ["status", "reason"], registry=registry
        )
        self._calls = Counter("lymphcad_calls", "Scored nodes by their call.", ["call"], registry=registry)
        self._probability = Histogram(
            "lymphcad_probability", "Probability of metastasis.", buckets=_TWENTIETHS, registry=registry
        )
        self._seconds = Histogram(
            "lymphcad_request_seconds", "From a node's request to its end, s.", buckets=_SECONDS, registry=registry
        )
        self._spacing = Histogram(
            "lymphcad_spacing_mm", "Spacing between rows, mm.", buckets=_SPACINGS_MM, registry=registry
        )
        self._hu = Histogram(
            "lymphcad_window_hu", "Mean of a node's field of view, HU.", buckets=_HU, registry=registry
        )
        self._observed = Counter(
            "lymphcad_observed",
            "Scored nodes in each bin of the training cohort's distribution.",
            ["bundle", "quantity", "bin"],
            registry=registry,
        )
        self._reference = Gauge(
            "lymphcad_reference_share",
            "Share of the training cohort in each bin.",
            ["bundle", "quantity", "bin"],
            registry=registry,
        )
        self._cohort = Gauge(
            "lymphcad_reference_nodes",
            "Nodes of the training cohort that its distribution is of.",
            ["bundle", "quantity"],
            registry=registry,
        )
        self._info = Gauge("lymphcad_bundle_info", "1.", ["bundle", "architecture"], registry=registry)
        # All of them from the start: of a counter that appears with its first event, Prometheus never sees that one.
        for call in ("benign", "metastatic"):
            self._calls.labels(call)
        self._nodes.labels("scored", "")
        for status in ("refused", "failed"):
            for reason in ("", *(reason.value for reason in Reason)):
                self._nodes.labels(status, reason)

    def saw(self, seen: Seen) -> None:
        """Count a request; see `lymphcad_client.observing.Observer`."""
        bundle = bundle_label(seen.manifest, seen.digest)
        self._introduce(bundle, seen.manifest)
        if seen.error is not None:
            status = "refused" if isinstance(seen.error, Refusal) else "failed"
            self._nodes.labels(status, seen.error.reason.value).inc()
        if seen.window is None:
            return
        self._seconds.observe(seen.seconds)
        preprocess = seen.manifest.preprocess
        spacing, hu = seen.window.spacing_mm, math.nan
        hu = mean_hu(seen.window.image, seen.window.center, spacing, preprocess.field_of_view_mm)
        self._spacing.observe(spacing[0])
        if math.isfinite(hu):
            self._hu.observe(hu)
        if seen.finding is None:
            return
        self._nodes.labels("scored", "").inc()
        self._calls.labels(seen.finding.call).inc()
        self._probability.observe(seen.finding.probability)
        reference = seen.manifest.reference
        if reference is not None:
            values = {"probability": seen.finding.probability, "spacing_mm": spacing[0], "window_hu": hu}
            for quantity in QUANTITIES:
                if math.isfinite(values[quantity]):
                    found = getattr(reference, quantity).bin_of(values[quantity])
                    self._observed.labels(bundle, quantity, str(found)).inc()

    def close(self) -> None:
        """Nothing is left to finish."""

    def _introduce(self, bundle: str, manifest: Manifest) -> None:
        """Say once of a bundle what its training cohort looked like."""
        with self._lock:
            if bundle in self._bundles:
                return
            self._bundles.add(bundle)
        self._info.labels(bundle, manifest.architecture).set(1)
        if manifest.reference is None:
            return
        for quantity in QUANTITIES:
            distribution = getattr(manifest.reference, quantity)
            self._cohort.labels(bundle, quantity).set(distribution.n)
            for number, share in enumerate(distribution.shares):
                self._reference.labels(bundle, quantity, str(number)).set(share)
                self._observed.labels(bundle, quantity, str(number))  # a bin that stays empty counts


class _Exposed(Metrics):
    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._server, self._thread = start_http_server(port, host, self.registry)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def open_metrics(address: str) -> Metrics:
    """Give metrics out by HTTP, in Prometheus' text format at ``/metrics``.

    Parameters
    ----------
    address
        ``HOST:PORT``; they are plain text and say how many nodes are metastatic, so keep them off open networks.

    Returns
    -------
    Metrics
        An observer.

    Raises
    ------
    CommandError
        If the address is not one, or cannot be listened on.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise CommandError(f"'{address}' is nowhere to give metrics out: write --metrics 127.0.0.1:9090")
    try:
        return _Exposed(host.strip("[]"), int(port))
    except OSError as error:
        raise CommandError(
            f"metrics cannot be given out at {address} ({error.strerror}): choose another port with --metrics"
        ) from None
