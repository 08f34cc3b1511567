-- Roles stay: they belong to the cluster, not to this database.
DROP TABLE audit_log, gc_sightings, leader, workspaces, archive_store, hosts, tokens, users;
DROP FUNCTION workspaces_touch();
