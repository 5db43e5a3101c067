{{- define "headrace.fullname" -}}
{{- $name := contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) -}}
{{- $name | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "headrace.selector" -}}
app.kubernetes.io/name: headrace
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "headrace.labels" -}}
{{ include "headrace.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* The same for the gateway. */ -}}
{{- define "headrace.gatewayName" -}}
{{ include "headrace.fullname" . }}-gateway
{{- end }}

{{- define "headrace.gatewaySelector" -}}
app.kubernetes.io/name: headrace
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end }}

{{- define "headrace.gatewayLabels" -}}
{{ include "headrace.gatewaySelector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "headrace.gatewayServiceAccount" -}}
{{ .Values.gateway.serviceAccount.name | default (include "headrace.gatewayName" .) }}
{{- end }}

{{- define "headrace.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "headrace.fullname" .) }}
{{- end }}

{{- define "headrace.image" -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default .appVersion }}{{ end }}
{{- end }}

{{- /* Every worker pod, of whatever batch. */ -}}
{{- define "headrace.workerSelector" -}}
app.kubernetes.io/name: headrace-worker
app.kubernetes.io/part-of: headrace
{{- end }}

{{- /* Those of warm pools. */ -}}
{{- define "headrace.poolWorkerSelector" -}}
{{ include "headrace.workerSelector" . }}
app.kubernetes.io/component: serve
{{- end }}

{{- /* What the operator may do with objects; tests/charts holds it against the calls that it makes. */ -}}
{{- define "headrace.rules" -}}
- apiGroups: [headrace.dev]
  resources: [scheduledgenerations]
  verbs: [list, watch]
- apiGroups: [headrace.dev]
  resources: [fanoutjobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [headrace.dev]
  resources: [inferencebatches]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [headrace.dev]
  resources: [inferencebatches/status]
  verbs: [patch]
- apiGroups: [headrace.dev]
  resources: [fanoutjobs/status]
  verbs: [patch]
- apiGroups: [headrace.dev]
  resources: [scheduledgenerations/status]
  verbs: [patch]
- apiGroups: [headrace.dev]
  resources: [inferencebatches/finalizers]
  verbs: [update]
- apiGroups: [headrace.dev]
  resources: [fanoutjobs/finalizers]
  verbs: [update]
- apiGroups: [headrace.dev]
  resources: [scheduledgenerations/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [cronjobs]
  verbs: [get, list, watch, create, patch]
- apiGroups: [batch]
  resources: [jobs/status]
  verbs: [patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# Of Kueue: where a batch stands in its queue; and a batch that is to rest has its Workload made inactive.
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list, watch, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}

{{- /* What the gateway may do with objects, in each namespace where it makes batches; tests/charts holds it against the calls that it makes. */ -}}
{{- define "headrace.gatewayRules" -}}
- apiGroups: [headrace.dev]
  resources: [inferencebatches]
  verbs: [get, list, watch, create, patch]
- apiGroups: [headrace.dev]
  resources: [fanoutjobs]
  verbs: [get, list, watch, create, patch]
{{- end }}

{{- /* Whether a route has a warm pool, whose workers are pods that the gateway starts. */ -}}
{{- define "headrace.hasPools" -}}
{{- range .Values.gateway.models.routes }}
{{- if hasKey (.target | default dict) "warmPool" }}yes{{ end }}
{{- end }}
{{- end }}

{{- /* What the gateway may do besides where those pods are; tests/charts holds it against the calls that it makes. */ -}}
{{- define "headrace.poolRules" -}}
- apiGroups: [batch]
  resources: [jobs]
  verbs: [list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [{{ include "headrace.gatewayName" . }}-pools]
  verbs: [get]
{{- end }}

{{- /* Where spans go, and which. */ -}}
{{- define "headrace.tracingEnv" -}}
{{- with .Values.tracing }}
{{- if .endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .endpoint | quote }}
- name: OTEL_TRACES_SAMPLER
  value: {{ .sampler }}
{{- with .samplerRatio }}
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ . | quote }}
{{- end }}
- name: HEADRACE_TRACE_RECORD_RATIO
  value: {{ .recordRatio | quote }}
{{- with .headersSecret }}
{{- if .name }}
- name: HEADRACE_TRACE_HEADERS_SECRET
  value: {{ printf "%s/%s" .name .key | quote }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom: {secretKeyRef: {name: {{ .name }}, key: {{ .key | quote }}}}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
