{{/* Names and labels of one service: pass a dict of `root` and `service`. */}}
{{- define "headrace.name" -}}
{{ printf "%s-%s" .root.Release.Name .service | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "headrace.selector" -}}
app.kubernetes.io/name: headrace
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .service }}
{{- end }}

{{- define "headrace.labels" -}}
{{ include "headrace.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
headrace/usecase: {{ .root.Values.usecase }}
{{- end }}

{{/* The prefix of the consumer groups: UseCase.full_name. */}}
{{- define "headrace.group" -}}
{{ .Values.usecase }}{{ with .Values.deployment }}.{{ . }}{{ end }}
{{- end }}

{{/* One variable out of a Secret: a dict of `variable`, `secret` and `of`, the value that names it. */}}
{{- define "headrace.secret" -}}
- name: {{ .variable }}
  valueFrom:
    secretKeyRef:
      name: {{ required (printf "%s.name: the name of the Secret that has %s" .of .variable) .secret.name }}
      key: {{ .secret.key }}
{{- end }}
