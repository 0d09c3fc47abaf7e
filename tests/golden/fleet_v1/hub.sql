BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0004');
CREATE TABLE audit (
	number INTEGER NOT NULL, 
	at DATETIME NOT NULL, 
	device_id VARCHAR(64) NOT NULL, 
	decision VARCHAR(32) NOT NULL, 
	reason_code VARCHAR(64) NOT NULL, 
	model_version VARCHAR(64), 
	notice_id VARCHAR(32), 
	recheck_at DATETIME, 
	CONSTRAINT pk_audit PRIMARY KEY (number)
);
CREATE TABLE certificates (
	serial VARCHAR(40) NOT NULL, 
	authority VARCHAR(16) NOT NULL, 
	generation INTEGER NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	key_digest VARCHAR(64) NOT NULL, 
	pem VARCHAR(4096) NOT NULL, 
	issued_at DATETIME NOT NULL, 
	not_after DATETIME NOT NULL, 
	replaces VARCHAR(40), 
	revoked_at DATETIME, 
	CONSTRAINT pk_certificates PRIMARY KEY (serial)
);
INSERT INTO "certificates" VALUES('1f844de7077bdfeeabf52ea499abd0c03c5339fc','server',1,'fedcell-hub-broker','1034ff34f9545067992ef2c9aef9096ffb76de368b6fab01c1f8728b130a10dd','-----BEGIN CERTIFICATE-----
MIIBsjCCAVmgAwIBAgIUH4RN5wd73+6r9S6kmavQwDxTOfwwCgYIKoZIzj0EAwIw
IjEgMB4GA1UEAwwXdGVzdCBzZXJ2ZXIgYXV0aG9yaXR5IDEwHhcNMjYwMjI4MTIw
MDAwWhcNMjcwNDAyMTIwMDAwWjAdMRswGQYDVQQDDBJmZWRjZWxsLWh1Yi1icm9r
ZXIwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQ++NqRv4y8/BUuQJ4qDfz+tfHx
xPhpzXWv6GsdFooZi2q6JgsOAKl3SkAetKVkSbQN9b/vh7fdps0v06spInhXo3Iw
cDAMBgNVHRMBAf8EAjAAMA4GA1UdDwEB/wQEAwIHgDATBgNVHSUEDDAKBggrBgEF
BQcDATAfBgNVHSMEGDAWgBQ/8EdZhML3LkEiEyntcs5AYF2FtDAaBgNVHREEEzAR
hwR/AAABgglsb2NhbGhvc3QwCgYIKoZIzj0EAwIDRwAwRAIgenHwcnBKuWwT+/+X
fkmg6JD7IV2525jbJ+LjcAs+yBkCIF3vexbW/1xr+VYCsj/Bxa9FKOxPakd+rkvz
SdL1sgdq
-----END CERTIFICATE-----
','2026-03-01 12:00:00.000000','2027-04-02 12:00:00.000000',NULL,NULL);
INSERT INTO "certificates" VALUES('5301266fef2934ffd51eeaac164b97d4dcc9bbf7','server',1,'fedcell-hub-enrolment','14de1d17284a17f50e0d2f30f9a361f4c50f07d6292dbb4b18257a5978f5b546','-----BEGIN CERTIFICATE-----
MIIBqjCCAVGgAwIBAgIUUwEmb+8pNP/VHuqsFkuX1NzJu/cwCgYIKoZIzj0EAwIw
IjEgMB4GA1UEAwwXdGVzdCBzZXJ2ZXIgYXV0aG9yaXR5IDEwHhcNMjYwMjI4MTIw
MDAwWhcNMjcwNDAyMTIwMDAwWjAgMR4wHAYDVQQDDBVmZWRjZWxsLWh1Yi1lbnJv
bG1lbnQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAR1nNyxtdum2AVxl5qhxgBd
E6JnIhSBW9Hme6zQ6U/KrQLEQJp1WKAXimnrqm6uDeCzDvnzoQqhGWwP4Wybd5ar
o2cwZTAMBgNVHRMBAf8EAjAAMA4GA1UdDwEB/wQEAwIHgDATBgNVHSUEDDAKBggr
BgEFBQcDATAfBgNVHSMEGDAWgBQ/8EdZhML3LkEiEyntcs5AYF2FtDAPBgNVHREE
CDAGhwR/AAABMAoGCCqGSM49BAMCA0cAMEQCIB5u0PD0Y4KFYvJNr74msla6IPA7
vgI+ozLKsnH2njwUAiBmgjXp+WiWQotLYU8ovKIjINfY5QwWEyqkNseFaEcTMg==
-----END CERTIFICATE-----
','2026-03-01 12:00:00.000000','2027-04-02 12:00:00.000000',NULL,NULL);
INSERT INTO "certificates" VALUES('3fba8ce9be54c455940616b88a22e8791dde0178','server',1,'fedcell-hub','4af4a074f7fcd87e1734ce3606364c476a2a85e8aa2e002e544438bf05ecb2cd','-----BEGIN CERTIFICATE-----
MIIBjzCCATagAwIBAgIUP7qM6b5UxFWUBha4iiLoeR3eAXgwCgYIKoZIzj0EAwIw
IjEgMB4GA1UEAwwXdGVzdCBzZXJ2ZXIgYXV0aG9yaXR5IDEwHhcNMjYwMjI4MTIw
MDAwWhcNMjcwNDAyMTIwMDAwWjAWMRQwEgYDVQQDDAtmZWRjZWxsLWh1YjBZMBMG
ByqGSM49AgEGCCqGSM49AwEHA0IABNbtJgkLpkTz1DpbpazLKnoARINlDzAqMGZR
2NF/Twl+A1T/XdPcfEeTRxp0d1l0tZDCFH0yE6LezxZUt4ZeWIijVjBUMAwGA1Ud
EwEB/wQCMAAwDgYDVR0PAQH/BAQDAgeAMBMGA1UdJQQMMAoGCCsGAQUFBwMCMB8G
A1UdIwQYMBaAFD/wR1mEwvcuQSITKe1yzkBgXYW0MAoGCCqGSM49BAMCA0cAMEQC
ID2+SesPcJBZDTLehvxrbthESb0lh++8800/yX4RkzhKAiBqgTTwKPxB0X1jhalz
GlT1ckaGScosY7c9fr3XYjr8LQ==
-----END CERTIFICATE-----
','2026-03-01 12:00:00.000000','2027-04-02 12:00:00.000000',NULL,NULL);
INSERT INTO "certificates" VALUES('55e8d54b1e0228ffb8230ea45eea3e3d2fa1c1c3','device',1,'fedcell-hub-revoked-probe','5ba2b34e2c1d400fbe6090f5f25cf9bf584d141657f5d8f28d7bf43f65928f8c','-----BEGIN CERTIFICATE-----
MIIBnjCCAUSgAwIBAgIUVejVSx4CKP+4Iw6kXuo+PS+hwcMwCgYIKoZIzj0EAwIw
IjEgMB4GA1UEAwwXdGVzdCBkZXZpY2UgYXV0aG9yaXR5IDEwHhcNMjYwMjI4MTIw
MDAwWhcNMzYwMjI3MTIwMDAwWjAkMSIwIAYDVQQDDBlmZWRjZWxsLWh1Yi1yZXZv
a2VkLXByb2JlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE1TvoF3yznN7zSOww
7TeyymRCfFjJhQ3jru6mcEPdBi6BVwAD52+MqNHwxYO2zpGPu1mvYgN9nci+v3ae
UlEM/KNWMFQwDAYDVR0TAQH/BAIwADAOBgNVHQ8BAf8EBAMCB4AwEwYDVR0lBAww
CgYIKwYBBQUHAwIwHwYDVR0jBBgwFoAUiPqEP9iEeyUUJRZhtv+c4sYcDk4wCgYI
KoZIzj0EAwIDSAAwRQIhAPBWZ1HBvg3uqXqTcTvREgHK1RJBfHXMI1jJXHBq85m3
AiB0wph7bs9w29icIEhPY2BSZ90gKGPy5GhEowSNQTjjtw==
-----END CERTIFICATE-----
','2026-03-01 12:00:00.000000','2036-02-27 12:00:00.000000',NULL,'2026-03-01 12:00:00.000000');
INSERT INTO "certificates" VALUES('1297dcab2986cc09fa7f66a2843b1e9337934571','device',1,'device-1','d94f9fea13be948d9da4923e81b04c8b19474116ac79e5a927cd96d87ec4a316','-----BEGIN CERTIFICATE-----
MIIBjTCCATOgAwIBAgIUEpfcqymGzAn6f2aihDsekzeTRXEwCgYIKoZIzj0EAwIw
IjEgMB4GA1UEAwwXdGVzdCBkZXZpY2UgYXV0aG9yaXR5IDEwHhcNMjYwMjI4MTIw
MDAwWhcNMjYwMzMxMTIwMDAwWjATMREwDwYDVQQDDAhkZXZpY2UtMTBZMBMGByqG
SM49AgEGCCqGSM49AwEHA0IABD1eO1bAxzpED1NaTVSZQQ6hhb5HYnzaxU7Jaw5o
akRGhtnrkBAA4dDpVLIW3dbRX93M8zPsd55ztrNSnA5x01WjVjBUMAwGA1UdEwEB
/wQCMAAwDgYDVR0PAQH/BAQDAgeAMBMGA1UdJQQMMAoGCCsGAQUFBwMCMB8GA1Ud
IwQYMBaAFIj6hD/YhHslFCUWYbb/nOLGHA5OMAoGCCqGSM49BAMCA0gAMEUCIQDX
LiaDl788aEvZv5spA2HFbJi6Or6tc5jWBcTOldbbpAIgTl/zUIrPNCPfi+q3HH7k
t0XH6uKbcrHVsXXE5Z6wpfc=
-----END CERTIFICATE-----
','2026-03-01 12:00:00.000000','2026-03-31 12:00:00.000000',NULL,NULL);
CREATE TABLE configurations (
	message_id VARCHAR(32) NOT NULL, 
	device_id VARCHAR(64) NOT NULL, 
	sequence BIGINT NOT NULL, 
	settings JSON NOT NULL, 
	issued_at DATETIME NOT NULL, 
	expires_at DATETIME NOT NULL, 
	applied_at DATETIME, 
	CONSTRAINT pk_configurations PRIMARY KEY (message_id), 
	CONSTRAINT fk_configurations_device_id_devices FOREIGN KEY(device_id) REFERENCES devices (device_id)
);
CREATE TABLE dead_letters (
	number INTEGER NOT NULL, 
	at DATETIME NOT NULL, 
	reason VARCHAR(64) NOT NULL, 
	detail VARCHAR(256) NOT NULL, 
	topic VARCHAR(256) NOT NULL, 
	payload_bytes INTEGER NOT NULL, 
	payload_sha256 VARCHAR(64) NOT NULL, 
	CONSTRAINT pk_dead_letters PRIMARY KEY (number)
);
CREATE TABLE devices (
	device_id VARCHAR(64) NOT NULL, 
	first_seen_at DATETIME NOT NULL, 
	last_seen_at DATETIME NOT NULL, 
	presence VARCHAR(16), 
	client_version VARCHAR(64), 
	feature_spec_version VARCHAR(64), 
	model_version VARCHAR(64), 
	summary JSON, 
	summary_received_at DATETIME, 
	last_sequence BIGINT NOT NULL, 
	notice_sequence BIGINT NOT NULL, 
	recheck_at DATETIME, refused_model VARCHAR(64), refused_because VARCHAR(32), configuration_sequence BIGINT, 
	CONSTRAINT pk_devices PRIMARY KEY (device_id)
);
CREATE TABLE enrolled_devices (
	device_id VARCHAR(64) NOT NULL, 
	sign_key BLOB NOT NULL, 
	seal_key BLOB NOT NULL, 
	supernode_key VARCHAR(512), 
	serial VARCHAR(40) NOT NULL, 
	enrolled_at DATETIME NOT NULL, 
	revoked_at DATETIME, 
	revoked_because VARCHAR(160), 
	CONSTRAINT pk_enrolled_devices PRIMARY KEY (device_id)
);
INSERT INTO "enrolled_devices" VALUES('device-1',X'0969EB57AFCFAFD2C19E9D46D80AD30D578CC19238006BEFBDFC5A7C0BAC1724',X'61CC06EA7E47510D5AA67E8640512DEF849E31559B72D9CFC1170DABE4FF7758','ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBJnn/9bce1f7QL7sH1xP5wYK+7/xKJXgIC3L6ZLIEpxDpNUff3dbAmoRaSj6SYcg0bAcEiL92KixCb5odB0SCuKUxwcMLRSkyfLQF8OsjmDazDx3lpLeBsf9Dfm+m1G6wA==','1297dcab2986cc09fa7f66a2843b1e9337934571','2026-03-01 12:00:00.000000',NULL,NULL);
CREATE TABLE enrolment_tokens (
	token_hash VARCHAR(64) NOT NULL, 
	device_id VARCHAR(64), 
	made_at DATETIME NOT NULL, 
	expires_at DATETIME NOT NULL, 
	used_at DATETIME, 
	used_by VARCHAR(64), 
	keys_digest VARCHAR(64), 
	serial VARCHAR(40), 
	CONSTRAINT pk_enrolment_tokens PRIMARY KEY (token_hash)
);
INSERT INTO "enrolment_tokens" VALUES('59a3a3a1e9538c344a4ae7e2b3ebba9e4cddcd0c9f48d83c152badb7277f0241',NULL,'2026-03-01 12:00:00.000000','2026-03-01 13:00:00.000000','2026-03-01 12:00:00.000000','device-1','282838f4322427b362b19c1b93bc3fb241f6106eeac780d8ee54effdbc80630a','1297dcab2986cc09fa7f66a2843b1e9337934571');
CREATE TABLE models (
	version VARCHAR(64) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	ledger_kind VARCHAR(16) NOT NULL, 
	ledger_hash VARCHAR(64), 
	added_at DATETIME NOT NULL, 
	state_at DATETIME NOT NULL, 
	CONSTRAINT pk_models PRIMARY KEY (version)
);
CREATE TABLE notices (
	notice_id VARCHAR(32) NOT NULL, 
	device_id VARCHAR(64) NOT NULL, 
	sequence BIGINT NOT NULL, 
	summary_id VARCHAR(32) NOT NULL, 
	template VARCHAR(64) NOT NULL, 
	language VARCHAR(6) NOT NULL, 
	urgency VARCHAR(16) NOT NULL, 
	days_band VARCHAR(16) NOT NULL, 
	probability_band VARCHAR(16) NOT NULL, 
	health_band VARCHAR(16) NOT NULL, 
	confidence VARCHAR(16) NOT NULL, 
	model_version VARCHAR(64) NOT NULL, 
	reason_codes JSON NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	version INTEGER NOT NULL, 
	issued_at DATETIME NOT NULL, 
	expires_at DATETIME NOT NULL, 
	state_at DATETIME NOT NULL, 
	CONSTRAINT pk_notices PRIMARY KEY (notice_id), 
	CONSTRAINT fk_notices_device_id_devices FOREIGN KEY(device_id) REFERENCES devices (device_id)
);
CREATE TABLE outbox (
	message_id VARCHAR(32) NOT NULL, 
	device_id VARCHAR(64) NOT NULL, 
	topic VARCHAR(160) NOT NULL, 
	payload BLOB NOT NULL, 
	attempts INTEGER NOT NULL, 
	next_attempt_at DATETIME, 
	expires_at DATETIME NOT NULL, 
	acked_at DATETIME, 
	CONSTRAINT pk_outbox PRIMARY KEY (message_id), 
	CONSTRAINT fk_outbox_device_id_devices FOREIGN KEY(device_id) REFERENCES devices (device_id)
);
CREATE TABLE release_counters (
	name VARCHAR(32) NOT NULL, 
	value BIGINT NOT NULL, 
	CONSTRAINT pk_release_counters PRIMARY KEY (name)
);
CREATE TABLE release_devices (
	number BIGINT NOT NULL, 
	device_id VARCHAR(64) NOT NULL, 
	in_ring BOOLEAN NOT NULL, 
	"before" JSON, 
	failed_because VARCHAR(32), 
	CONSTRAINT pk_release_devices PRIMARY KEY (number, device_id), 
	CONSTRAINT fk_release_devices_number_releases FOREIGN KEY(number) REFERENCES releases (number), 
	CONSTRAINT fk_release_devices_device_id_devices FOREIGN KEY(device_id) REFERENCES devices (device_id)
);
CREATE TABLE release_rings (
	name VARCHAR(32) NOT NULL, 
	position INTEGER NOT NULL, 
	share FLOAT NOT NULL, 
	devices JSON NOT NULL, 
	CONSTRAINT pk_release_rings PRIMARY KEY (name)
);
CREATE TABLE release_trail (
	number_of_row INTEGER NOT NULL, 
	at DATETIME NOT NULL, 
	number BIGINT NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	ring VARCHAR(32), 
	reason VARCHAR(256) NOT NULL, 
	CONSTRAINT pk_release_trail PRIMARY KEY (number_of_row)
);
CREATE TABLE releases (
	number BIGINT NOT NULL, 
	version VARCHAR(64) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	feature_spec_version VARCHAR(64) NOT NULL, 
	least_client_version VARCHAR(64) NOT NULL, 
	back_version VARCHAR(64) NOT NULL, 
	back_feature_spec_version VARCHAR(64) NOT NULL, 
	back_least_client_version VARCHAR(64) NOT NULL, 
	policy JSON NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	ring INTEGER, 
	ring_began_at DATETIME, 
	looks INTEGER NOT NULL, 
	looked_at INTEGER NOT NULL, 
	reason VARCHAR(256) NOT NULL, 
	proposed_at DATETIME NOT NULL, 
	state_at DATETIME NOT NULL, 
	CONSTRAINT pk_releases PRIMARY KEY (number)
);
CREATE INDEX ix_devices_recheck_at ON devices (recheck_at);
CREATE INDEX ix_notices_device_id_issued_at ON notices (device_id, issued_at);
CREATE INDEX ix_notices_state ON notices (state);
CREATE INDEX ix_outbox_next_attempt_at ON outbox (next_attempt_at);
CREATE INDEX ix_outbox_device_id ON outbox (device_id);
CREATE INDEX ix_audit_device_id_at ON audit (device_id, at);
CREATE INDEX ix_audit_decision_reason_code ON audit (decision, reason_code);
CREATE INDEX ix_dead_letters_reason ON dead_letters (reason);
CREATE INDEX ix_configurations_device_id_sequence ON configurations (device_id, sequence);
CREATE INDEX ix_certificates_name ON certificates (name);
CREATE INDEX ix_certificates_revoked_at ON certificates (revoked_at);
CREATE INDEX ix_release_devices_number_in_ring ON release_devices (number, in_ring);
COMMIT;
