"""Where a worker may go for media: public addresses only, unless `input.media.allowedNetworks` says otherwise."""

from __future__ import annotations

from headrace.api import addresses
from headrace.api.media import Media


class AddressPolicy(addresses.AddressPolicy):
    """What `input.media` says about hosts and addresses."""

    def __init__(self, media: Media) -> None:
        super().__init__(media.allowed_hosts, media.allowed_networks)
