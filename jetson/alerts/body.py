"""What an alert consists of when it is sent: one flat object, the same for every receiver."""

from typing import Any, Dict

# In the order of docs/alerts.md.
KEYS = (
    "id", "at", "rule", "when", "text", "test", "device", "camera", "zone", "label", "role", "person", "seconds",
    "percent", "persons", "reason", "suppressed", "number", "picture",
    "picture_url", "clip_url", "picture_base64",
)  # fmt: skip


def title(body: Dict[str, Any]) -> str:
    """One short line."""
    return f"jetmask {body.get('device') or ''}: {body['rule']}".replace(" :", ":") + (
        " (test)" if body["test"] else ""
    )
