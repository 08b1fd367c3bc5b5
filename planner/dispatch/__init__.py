"""Who runs what: matching, leases, reports, and what becomes of work whose executor is lost."""
