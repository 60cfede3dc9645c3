"""The connected side: locks, fetches, scans, signs and packs; the officers' desk."""
