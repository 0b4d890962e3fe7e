{{/*
The arguments of the container, in the order of `gwmon serve --help`. A value that is gwmon's own default is not passed, so that
the shortest command line is the usual one.
*/}}
{{- define "gwmon.args" -}}
{{- $name := include "gwmon.name" . -}}
- serve
{{- with .Values }}
{{- if ne (int .webhook.port) 8443 }}
- --bind=0.0.0.0:{{ int .webhook.port }}
{{- end }}
{{- if ne .certificates.source "self-signed" }}
- --certificates={{ .certificates.source }}
{{- end }}
{{- if .clientCA.secretName }}
- --client-ca=/etc/gwmon/client-ca/{{ .clientCA.key }}
{{- end }}
{{- if ne $name "gwmon" }}
- --name={{ $name }}
{{- end }}
{{- if ne .suspendAfter "30s" }}
- --suspend-after={{ .suspendAfter }}
{{- end }}
{{- if ne .suspendFor "5m" }}
- --suspend-for={{ .suspendFor }}
{{- end }}
{{- range .prometheus }}
- --prometheus={{ . }}
{{- end }}
{{- if ne (int .maxGatewaysPerNamespace) 200 }}
- --max-gateways-per-namespace={{ int .maxGatewaysPerNamespace }}
{{- end }}
{{- if ne .logFormat "text" }}
- --log-format={{ .logFormat }}
{{- end }}
{{- if ne .log "info,kube_client::client=error" }}
- {{ printf "--log=%s" .log | quote }}
{{- end }}
- --config=/etc/gwmon/config/config.yaml
{{- if ne .exporter.image "quay.io/prometheus/statsd-exporter:v0.30.0" }}
- {{ printf "--exporter-image=%s" .exporter.image | quote }}
{{- end }}
{{- if ne .sidecar "auto" }}
- --sidecar={{ .sidecar }}
{{- end }}
{{- if .monitorLabels }}
{{- $labels := list }}
{{- range $key, $value := .monitorLabels }}
{{- $labels = append $labels (printf "%s=%s" $key $value) }}
{{- end }}
- --monitor-labels={{ join "," $labels }}
{{- end }}
{{- if ne .minInterval "5s" }}
- --min-interval={{ .minInterval }}
{{- end }}
{{- /* Null is any, an empty list is none. */}}
{{- if kindIs "slice" .allowedMonitorLabels }}
- --allowed-monitor-labels={{ join "," .allowedMonitorLabels }}
{{- end }}
{{- if not .allowCrossNamespaceMonitors }}
- --allow-cross-namespace-monitors=false
{{- end }}
{{- range .extraArgs }}
- {{ quote . }}
{{- end }}
{{- end }}
{{- end -}}
