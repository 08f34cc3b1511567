DROP FUNCTION workspaces_attention(bigint);
DROP INDEX workspaces_attention;
