"""The agent: one asyncio process a node that watches, decides, and tells keepalived through two small files.

    haproxy_watch  vip_watch  vrrp_watch  etcd_watch  pools     what it sees, each on its own
    loop                                                         snapshot -> health -> decision -> trackers
    trackers                                                     up, score, heartbeat
    notify                                                       systemd

It moves nothing when it dies, hangs or starts: what keepalived reads outlives it.
"""
