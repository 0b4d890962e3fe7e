{{/* The installation's name, by the rules of `gwmon serve --name`. */}}
{{- define "gwmon.name" -}}
{{- $name := .Values.nameOverride | default .Release.Name -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]{0,48}[a-z0-9])?$" $name) -}}
{{- fail (printf "the name %q is not possible: use lower case letters, digits and -, beginning with a letter, at most 50 characters (the release's name, or nameOverride)" $name) -}}
{{- end -}}
{{- if hasSuffix "-gwmon" $name -}}
{{- fail (printf "the name %q is not possible: names that end in -gwmon are reserved for gateways' objects (the release's name, or nameOverride)" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* Labels of all objects but one. */}}
{{- define "gwmon.labels" -}}
app.kubernetes.io/name: {{ include "gwmon.name" . }}
{{ include "gwmon.commonLabels" . }}
{{- end -}}

{{/* The same without the name, by which the Service selects its pods. */}}
{{- define "gwmon.commonLabels" -}}
app.kubernetes.io/part-of: gwmon
app.kubernetes.io/instance: {{ quote .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* gwmon's image. */}}
{{- define "gwmon.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What each container may do: as little as Pod Security `restricted` asks for. */}}
{{- define "gwmon.securityContext" -}}
{{- if not .Values.openshift -}}
runAsUser: 65534
{{ end -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* The exporter's image: of the value exporter.image, which is a flag, or else of the configuration file. */}}
{{- define "gwmon.exporterImage" -}}
{{- $shipped := "quay.io/prometheus/statsd-exporter:v0.30.0" -}}
{{- $file := dig "exporter" "image" "" (.Values.config | default dict) -}}
{{- if and $file (eq .Values.exporter.image $shipped) }}{{ $file }}{{ else }}{{ .Values.exporter.image }}{{ end }}
{{- end -}}
